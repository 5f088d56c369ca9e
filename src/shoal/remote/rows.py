"""The backend `remote`: rows of one or several servers behind the VecEnv contract."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoal.envs.actions import ActionCheck
from shoal.envs.in_flight import CALL_RESET, HALFWAY, InFlight
from shoal.envs.outputs import MAX_VIEWS, Outputs
from shoal.envs.vec_env import row_seeds
from shoal.remote import environments_pb2 as wire
from shoal.remote.address import ENCRYPTED, servers_of
from shoal.remote.arrivals import Arrivals
from shoal.remote.batches import Batches
from shoal.remote.connection import Connection
from shoal.remote.description import differences
from shoal.remote.linked import linked_servers
from shoal.remote.recovery import Recovery
from shoal.remote.settings import Terms
from shoal.remote.states import pack, unpack
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.types import Bools, Layout, Ready, Spec, Tree


def make(name: str, num_envs: int, terms: Terms | None = None) -> RemoteEnv:
    """`num_envs` environments of the servers that `name` lists, each with an equal share or one more, or of the first.

    Raises:
        ConfigError: a server does not answer, has too few environments, or another one.
    """
    servers = servers_of(name)[:num_envs]
    asked = terms or Terms()
    connections: list[Connection] = []
    try:
        for server in servers:
            made = Connection(
                server,
                timeout_s=asked.timeout_s,
                remote=asked.remote,
                encrypted=name.startswith(ENCRYPTED),
            )
            connections.append(made)
            first, last = connections[0], connections[-1]
            other = differences(first.spec, last.spec)
            if other:
                raise ConfigError(
                    f"the servers at {first.server} and {last.server} have different environments "
                    f"({first.spec.env_id} and {last.spec.env_id}, which differ in {', '.join(other)}); start "
                    "both with the same one"
                )
        return RemoteEnv(connections, num_envs, asked)
    except BaseException:
        for connection in connections:
            connection.close()
        raise


class Part(NamedTuple):
    """What a server has of the rows of a send."""

    server: int
    rows: slice
    """Of all rows."""
    first: int
    """Of the server's own rows."""
    action: list[NDArray[Any]]
    """Its actions, leaf by leaf, once they are written to the send's."""


class Send(NamedTuple):
    """The rows of a send: where their actions are written to, and what each server has of them."""

    action: Tree
    parts: list[Part]


class Sends:
    """Sends by their rows."""

    def __init__(self, servers: list[slice], action: Layout) -> None:
        """`servers`: the rows of each; `action`: of one row."""
        self._servers, self._actions = servers, Batches(action)
        self._found: dict[tuple[int, int], Send] = {}

    def of(self, rows: slice) -> Send:
        """Found once for slices that come again."""
        place = rows.start, rows.stop
        found = self._found.get(place)
        if found is None:
            if len(self._found) == MAX_VIEWS:
                self._found.clear()
            found = self._found[place] = self._find(rows)
        return found

    def _find(self, rows: slice) -> Send:
        batch = self._actions.of(rows.stop - rows.start)
        parts: list[Part] = []
        for number, own in enumerate(self._servers):
            first, last = max(own.start, rows.start), min(own.stop, rows.stop)
            if first < last:
                its = slice(first - rows.start, last - rows.start)
                action = [array[its] for array in batch.arrays]
                part = Part(number, slice(first, last), first - own.start, action)
                parts.append(part)
        return Send(batch.tree, parts)


class RemoteEnv:
    """Rows on servers. Server after server has a contiguous part of them.

    After an error nothing goes on before the next `reset` or `restore`; a server that is gone ends these rows.
    """

    native_pool = None
    python_rows = None

    def __init__(
        self, connections: list[Connection], num_envs: int, terms: Terms
    ) -> None:
        """Takes `num_envs` environments of the servers, which are closed with this object."""
        spec = connections[0].spec
        self.capabilities = connections[0].capabilities
        self.num_rows = num_envs * spec.num_agents
        self._servers = connections
        bounds = [num_envs * i // len(connections) for i in range(len(connections) + 1)]
        agents = spec.num_agents
        self._rows: list[slice] = []
        for connection, (first, last) in zip(
            connections, pairwise(bounds), strict=True
        ):
            connection.open(last - first, playing=terms.playing)
            self._rows.append(slice(first * agents, last * agents))
        self._sends = Sends(self._rows, spec.action)
        self._asked: list[deque[Connection]] = [deque() for _ in connections]
        """Of each server, the sessions that parts under way were asked of: another one may have taken its place."""
        in_flight = self._in_flight = InFlight(self.num_rows)
        self._check = ActionCheck(spec)
        self.out = Outputs(spec, self.num_rows)
        self._arrivals = Arrivals(spec, self.out)
        self._recovery = Recovery(connections, self._rows, self.out, terms)
        linked = linked_servers(connections, self._rows, self._arrivals, in_flight)
        self.linked = None if self._recovery.survives else linked

    @property
    def spec(self) -> Spec:
        """What a row observes and does."""
        return self._arrivals.spec

    @property
    def plane(self) -> str:
        """What the first server's batches go over, in words."""
        return self._servers[0].plane

    @property
    def dropped(self) -> Bools:
        """Rows of servers that failed and were dropped: they are invalid until the next `reset` or `restore`."""
        return self._recovery.last_seen.dropped

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        seeds = row_seeds(seed, self.num_rows)
        self._stop()
        asked = [{"reset": wire.Reset(seeds=seeds[rows])} for rows in self._rows]
        self._begin(seeds, asked)

    def restart(
        self,
        seeds: Sequence[int | None],
        rows: Bools,
        *,
        held: Bools,
        options: dict[str, Any] | None = None,
    ) -> None:
        """ConfigError: rows on servers are only reset all together."""
        raise ConfigError(
            f"{self.spec.env_id}: rows on servers begin anew by reset(seed) only; backend='serial' restarts some"
        )

    def send(self, rows: slice, action: Tree) -> None:
        """Sends each server its part of `rows`."""
        rows = self._in_flight.send(rows)
        send = self._sends.of(rows)
        try:
            self._check.copy(rows, action, send.action)
        except ValueError:
            self._in_flight.undo()
            raise
        dropped = self.dropped
        for number, its, first, actions in send.parts:
            if dropped[its.start]:
                continue
            server = self._servers[number]
            self._asked[number].append(server)
            server.step(first, its.stop - its.start, actions)

    def recv(self) -> Ready:
        """Waits for the servers of the oldest send."""
        fresh = self._in_flight.fresh
        rows = self._in_flight.recv()
        if not fresh:
            self._take(self._sends.of(rows).parts)
        return self.out.view(rows)

    def state(self) -> dict[str, Any]:
        """The states of the servers' rows, with how many each has."""
        self._in_flight.quiet()
        there = [not self.dropped[rows.start] for rows in self._rows]
        for server, is_there in zip(self._servers, there, strict=True):
            if is_there:
                server.send(save=wire.Save())
        parts: list[Any] = []
        for server, is_there in zip(self._servers, there, strict=True):
            parts.append(unpack(server.receive("state").state) if is_there else None)
        return {
            "rows": [rows.stop - rows.start for rows in self._rows],
            "parts": parts,
            "seeds": list(self._recovery.last_seen.seeds),
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Each server goes on from its part."""
        counts = [rows.stop - rows.start for rows in self._rows]
        if list(state["rows"]) != counts:
            raise ConfigError(
                f"{self.spec.env_id}: the saved rows were on servers with {list(state['rows'])} rows, and these have "
                f"{counts}; give as many servers and environments as before"
            )
        self._stop()
        seeds, name = list(state["seeds"]), self.spec.env_id
        asked: list[dict[str, Any]] = []
        for part, rows in zip(state["parts"], self._rows, strict=True):
            if part is None:  # dropped: nobody has their state
                asked.append({"reset": wire.Reset(seeds=seeds[rows])})
            else:
                asked.append({"restore": wire.Restore(state=pack(part))})
        told = self._begin(seeds, asked)
        for part, rows in zip(state["parts"], self._rows, strict=True):
            if part is None:
                self.out.truncated[rows] = True
                for row in range(rows.start, rows.stop):
                    told.append(f"{name}: row {row} was dropped; its episode is cut")
        return told

    def render(self, row: int) -> NDArray[np.uint8]:
        """ConfigError: no frames come from servers."""
        raise ConfigError(
            f"{self.spec.env_id}: rows on servers do not render; use backend='serial' with the environment itself"
        )

    def close(self) -> None:
        """Ends the sessions; the servers close their rows."""
        self._in_flight.stop("the environment is closed")
        for server in self._servers:
            server.close()

    def _stop(self) -> None:
        """Nobody waits for what is under way."""
        self._recovery.renew()
        for server, asked in zip(self._servers, self._asked, strict=True):
            server.forget()
            asked.clear()
        self._in_flight.stop(CALL_RESET)

    def _begin(
        self, seeds: Sequence[int], asked: Sequence[dict[str, Any]]
    ) -> list[str]:
        """All rows begin as each server is asked to; returns their sentences about episodes that were cut."""
        for server, what in zip(self._servers, asked, strict=True):
            server.send(**what)
        cut: list[str] = []
        for number, rows in enumerate(self._rows):
            found = self._recovery.begin(number, asked[number])
            self._arrivals.write(rows, rows.start, found, self._servers[number].server)
            cut += found.cut
        self._recovery.last_seen.begin(self.out, seeds, [0] * self.num_rows)
        self._in_flight.begin()
        return cut

    def _take(self, parts: list[Part]) -> None:
        """Receives the rows of these servers; what follows a fault is the recovery's."""
        try:
            for part in parts:
                self._take_part(part)
        except BaseException:
            self._in_flight.stop(HALFWAY)
            raise

    def _take_part(self, part: Part) -> None:
        recovery, number, rows = self._recovery, part.server, part.rows
        dropped = self.dropped[rows.start]
        server = None if dropped else self._asked[number].popleft()
        if server is not None and server is self._servers[number]:
            try:
                found = server.receive("rows")
                first = rows.start - part.first
                self._arrivals.write(rows, first, found, server.server)
                if recovery.survives:
                    recovery.last_seen.note(self.out, rows)
                return
            except EnvError as error:
                recovery.settle(number, error, self._arrivals)
        if self.dropped[rows.start]:
            recovery.last_seen.skip(self.out, rows)
        else:
            recovery.cut(number, rows)
            recovery.last_seen.note(self.out, rows)
