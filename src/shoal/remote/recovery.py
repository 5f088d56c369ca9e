"""What follows where a server fails: its error is raised, a new session takes its rows, or others go on without."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.outputs import take
from shoal.envs.workers.last_seen import LastSeen
from shoal.remote import environments_pb2 as wire
from shoal.remote.description import differences
from shoal.types import ConfigError, EnvError, assign, text_of

if TYPE_CHECKING:
    from shoal.envs.outputs import Outputs
    from shoal.remote.arrivals import Arrivals
    from shoal.remote.connection import Connection
    from shoal.remote.settings import Terms

_LOG = logging.getLogger(__name__)
PAUSE_S = 0.5
"""Between two tries to reach a server again."""


class Recovery:
    """Does what `on_fault` says of a server that is gone, silent or broken."""

    def __init__(
        self,
        servers: list[Connection],
        rows: list[slice],
        out: Outputs,
        terms: Terms,
    ) -> None:
        """`servers`: those that take another's place are put there; `rows`: of each."""
        self._servers, self._rows, self._out, self._terms = servers, rows, out, terms
        self.last_seen = LastSeen(servers[0].spec, rows[-1].stop)
        self._begun: dict[int, Any] = {}
        """Of servers in another's place: the first observations, and masks, of their rows' new episodes."""

    @property
    def survives(self) -> bool:
        """Whether rows are noted as they were handed over, as something may go on without them."""
        return self._terms.on_fault != "raise"

    def renew(self) -> None:
        """Servers that were dropped are reached again, before all rows begin anew; ConfigError where one is not."""
        for number, server in enumerate(self._servers):
            if server.closed:
                self._servers[number] = self._reached(number)

    def begin(self, number: int, what: dict[str, Any]) -> Any:
        """The first rows of a server that was asked to begin, in another session where `restart` allows it."""
        try:
            return self._servers[number].receive("rows")
        except EnvError as error:
            if self._terms.on_fault != "restart":
                raise
            failed: Exception = error
        for count in range(self._terms.max_restarts):
            try:
                return self._asked_anew(number, failed, count, what)
            except (ConfigError, EnvError) as again:
                failed = again
        raise self._noted(failed)

    def settle(self, number: int, error: Exception, arrivals: Arrivals) -> None:
        """After this the server's rows are cut, or dropped; or the error is raised."""
        match self._terms.on_fault:
            case "raise":
                raise error
            case "drop":
                self._drop(number, error)
            case _:
                self._restart(number, error, arrivals)

    def cut(self, number: int, rows: slice) -> None:
        """A step in which lost rows do nothing but end, as truncated, and begin anew."""
        out, last_seen = self._out, self.last_seen
        out.valid[rows] = out.terminated[rows] = False
        out.truncated[rows] = True
        out.reward[rows] = 0
        assign(out.final_obs, rows, take(last_seen.obs, rows))
        out.episode_return[rows] = last_seen.returns[rows]
        out.episode_length[rows] = last_seen.lengths[rows]
        for values in out.info.values():
            values[rows] = np.nan
        obs, masks = self._begun[number]
        first = self._rows[number].start
        own = slice(rows.start - first, rows.stop - first)
        assign(out.obs, rows, take(obs, own))
        if out.action_mask is not None:
            out.action_mask[rows] = masks[own]

    def _restart(self, number: int, error: Exception, arrivals: Arrivals) -> None:
        """A new session for the server's rows, there or where it is started again, as long as the budget lasts."""
        last_seen, rows = self.last_seen, self._rows[number]
        for count in range(last_seen.restarts[rows.start], self._terms.max_restarts):
            last_seen.restarts[rows] = [count + 1] * (rows.stop - rows.start)
            what = {"reset": wire.Reset(seeds=last_seen.of(rows)["seeds"])}
            try:
                found = self._asked_anew(number, error, count, what)
                self._begun[number] = arrivals.first(found)
                return
            except (ConfigError, EnvError) as again:
                error = again
        raise self._noted(error)

    def _asked_anew(
        self, number: int, error: Exception, count: int, what: dict[str, Any]
    ) -> Any:
        """The first rows of a new session in the place of one that failed."""
        most = self._terms.max_restarts
        _LOG.warning("%s; restart %d of %d", text_of(error), count + 1, most)
        self._servers[number].close()
        self._servers[number] = fresh = self._reached(number)
        fresh.send(**what)
        return fresh.receive("rows")

    def _noted(self, error: Exception) -> Exception:
        most = self._terms.max_restarts
        error.add_note(f"shoal: after {most} restarts, as max_restarts allows")
        return error

    def _reached(self, number: int) -> Connection:
        """The server again, with as many environments; ConfigError where it does not come back within the time-out."""
        gone, rows = self._servers[number], self._rows[number]
        deadline = time.monotonic() + self._terms.timeout_s
        while True:
            try:
                found = gone.again(self._place(number))
                other = differences(gone.spec, found.spec)
                if other:
                    found.close()
                    raise ConfigError(
                        f"the server at {gone.server} has another environment now: {', '.join(other)}"
                    )
                count = (rows.stop - rows.start) // gone.spec.num_agents
                found.open(count, playing=self._terms.playing)
                return found
            except ConfigError:
                if time.monotonic() + PAUSE_S > deadline:
                    raise
                time.sleep(PAUSE_S)

    def _place(self, number: int) -> str:
        """Where the server is, or is started again."""
        locate = self._terms.locate
        return self._servers[number].server if locate is None else locate(number)

    def _drop(self, number: int, error: Exception) -> None:
        """Goes on without the server and its rows, as long as there are others."""
        last_seen, rows = self.last_seen, self._rows[number]
        self._servers[number].close()
        last_seen.dropped[rows] = True
        if last_seen.dropped.all():
            error.add_note(
                "shoal: it was the last server; all others were dropped before"
            )
            raise error
        left = int((~last_seen.dropped).sum())
        _LOG.warning("%s; it is dropped, and %d rows go on", text_of(error), left)
