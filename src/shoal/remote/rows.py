"""The backend `remote`: rows of one or several servers behind the VecEnv contract."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoal.envs.actions import ActionCheck
from shoal.envs.in_flight import CALL_RESET, InFlight
from shoal.envs.masks import MaskReader
from shoal.envs.outputs import Outputs
from shoal.envs.vec_env import row_seeds
from shoal.remote import environments_pb2 as wire
from shoal.remote.address import ENCRYPTED, servers_of
from shoal.remote.batches import Batch, Batches, arrays_of, ready_layout
from shoal.remote.connection import Connection
from shoal.remote.description import differences
from shoal.remote.settings import Terms
from shoal.remote.states import pack, unpack
from shoal.types import ConfigError, EnvError, map_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.types import Bools, Ready, Tree


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
        return RemoteEnv(connections, num_envs, playing=asked.playing)
    except BaseException:
        for connection in connections:
            connection.close()
        raise


class Part(NamedTuple):
    """What a server has of the rows of a send."""

    server: int
    rows: slice
    """Of all rows."""


class RemoteEnv:
    """Rows on servers. Server after server has a contiguous part of them.

    After an error nothing goes on before the next `reset` or `restore`; a server that is gone ends these rows.
    """

    native_pool = None
    python_rows = None

    def __init__(
        self, connections: list[Connection], num_envs: int, *, playing: bool
    ) -> None:
        """Takes `num_envs` environments of the servers, which are closed with this object."""
        self.spec = connections[0].spec
        self.capabilities = connections[0].capabilities
        self.num_rows = num_envs * self.spec.num_agents
        self._servers = connections
        bounds = [num_envs * i // len(connections) for i in range(len(connections) + 1)]
        agents = self.spec.num_agents
        self._rows: list[slice] = []
        for connection, (first, last) in zip(
            connections, pairwise(bounds), strict=True
        ):
            connection.open(last - first, playing=playing)
            self._rows.append(slice(first * agents, last * agents))
        self._in_flight = InFlight(self.num_rows)
        self._check = ActionCheck(self.spec)
        self.out = Outputs(self.spec, self.num_rows)
        self._actions = Batches(self.spec.action)
        self._received = Batches(ready_layout(self.spec, masked=self.spec.masked))
        if self.spec.masked:
            self._add_masks()

    @property
    def plane(self) -> str:
        """What the first server's batches go over, in words."""
        return self._servers[0].plane

    @property
    def dropped(self) -> Bools:
        """No row is ever dropped."""
        return np.zeros(self.num_rows, np.bool_)

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        seeds = row_seeds(seed, self.num_rows)
        self._stop()
        for server, rows in zip(self._servers, self._rows, strict=True):
            server.send(reset=wire.Reset(seeds=seeds[rows]))
        self._take([Part(number, rows) for number, rows in enumerate(self._rows)])
        self._in_flight.begin()

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
        batch = self._actions.of(rows.stop - rows.start)
        try:
            self._check.copy(rows, action, batch.tree)
        except ValueError:
            self._in_flight.undo()
            raise
        for part in self._parts(rows):
            own = self._rows[part.server]
            first, count = part.rows.start - own.start, part.rows.stop - part.rows.start
            data = self._packed(batch, rows, part)
            self._servers[part.server].send(
                step=wire.Step(first=first, count=count, action=data)
            )

    def recv(self) -> Ready:
        """Waits for the servers of the oldest send."""
        fresh = self._in_flight.fresh
        rows = self._in_flight.recv()
        if not fresh:
            self._take(self._parts(rows))
        return self.out.view(rows)

    def state(self) -> dict[str, Any]:
        """The states of the servers' rows, with how many each has."""
        self._in_flight.quiet()
        for server in self._servers:
            server.send(save=wire.Save())
        parts = [unpack(server.receive("state").state) for server in self._servers]
        return {"rows": [rows.stop - rows.start for rows in self._rows], "parts": parts}

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Each server goes on from its part."""
        counts = [rows.stop - rows.start for rows in self._rows]
        if list(state["rows"]) != counts:
            raise ConfigError(
                f"{self.spec.env_id}: the saved rows were on servers with {list(state['rows'])} rows, and these have "
                f"{counts}; give as many servers and environments as before"
            )
        self._stop()
        for server, part in zip(self._servers, state["parts"], strict=True):
            server.send(restore=wire.Restore(state=pack(part)))
        cut = self._take([Part(number, rows) for number, rows in enumerate(self._rows)])
        self._in_flight.begin()
        return cut

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
        for server in self._servers:
            server.forget()
        self._in_flight.stop(CALL_RESET)

    def _parts(self, rows: slice) -> list[Part]:
        found: list[Part] = []
        for number, own in enumerate(self._rows):
            first, last = max(own.start, rows.start), min(own.stop, rows.stop)
            if first < last:
                found.append(Part(number, slice(first, last)))
        return found

    def _packed(self, batch: Batch, rows: slice, part: Part) -> bytes:
        """The actions of a server's part of a send."""
        if part.rows == rows:
            return batch.block.tobytes()
        own = self._actions.of(part.rows.stop - part.rows.start)
        first, last = part.rows.start - rows.start, part.rows.stop - rows.start
        for to, array in zip(own.arrays, batch.arrays, strict=True):
            to[...] = array[first:last]
        return own.block.tobytes()

    def _take(self, parts: list[Part]) -> list[str]:
        """Receives the rows of these servers; returns what they say of episodes that were cut."""
        cut: list[str] = []
        try:
            for part in parts:
                found = self._servers[part.server].receive("rows")
                self._write(part, found)
                cut += found.cut
        except BaseException:
            self._in_flight.stop(
                "a step failed halfway; call reset(seed) or restore(state)"
            )
            raise
        return cut

    def _write(self, part: Part, found: Any) -> None:
        """Copies what a server says into the arrays of all rows."""
        own = self._rows[part.server]
        if (found.first + own.start, found.count) != (
            part.rows.start,
            part.rows.stop - part.rows.start,
        ):
            raise EnvError(
                f"the server at {self._servers[part.server].server} answered for rows {found.first} to "
                f"{found.first + found.count - 1}, not for those that were stepped"
            )
        if found.masked and not self.spec.masked:
            self.spec = replace(self.spec, masked=True)
            self._received = Batches(ready_layout(self.spec, masked=True))
            self._add_masks()
        batch = self._received.of(found.count)
        batch.read(found.arrays, "rows")
        ready = self.out.view(part.rows)
        for to, array in zip(arrays_of(self.spec, ready), batch.arrays, strict=True):
            to[...] = array
        ended = np.flatnonzero(ready.terminated | ready.truncated)
        if len(ended):
            last = Batch(self.spec.observation, len(ended))
            last.read(found.final_obs, "final observations")

            def put(to: NDArray[Any], array: NDArray[Any]) -> None:
                to[ended] = array

            map_tree(put, ready.final_obs, last.tree)

    def _add_masks(self) -> None:
        options = MaskReader(self.spec).size
        self.out.add_masks(np.ones((self.num_rows, options), np.bool_))
