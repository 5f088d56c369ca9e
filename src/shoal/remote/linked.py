"""Whole rollouts of rows on servers in native code, over sockets of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.envs.in_flight import HALFWAY
from shoal.remote.batches import fits_native
from shoal.remote.streams import UNIX
from shoal.types import EnvError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal import _native
    from shoal.envs.in_flight import InFlight
    from shoal.remote.arrivals import Arrivals
    from shoal.remote.connection import Connection

MOST_S = 0.1
"""How long a call stays in native code at a time: signals wait for it."""
DONE, UNDER_WAY = -1, -2
"""What a native rollout says but the number of a server."""


class LinkedServers:
    """Servers whose rows act and step by themselves, each as fast as it can.

    Native code sends requests and receives rows. Whatever else comes of a stream is left to its `Connection`, which has
    each request that is under way: it waits, connects anew, or says what went wrong.
    """

    def __init__(
        self,
        connections: list[Connection],
        rows: list[slice],
        arrivals: Arrivals,
        in_flight: InFlight,
    ) -> None:
        """`rows`: of each; `arrivals` writes replies that native code does not read; `in_flight`: of all rows."""
        self._connections, self._rows = connections, rows
        self._arrivals, self._in_flight = arrivals, in_flight

    @property
    def obs(self) -> NDArray[Any]:
        """What all rows see [B, ...]."""
        return self._arrivals.out.obs

    def servers(self) -> list[tuple[int, int]]:
        """Of each its rows and the number of the last request."""
        pairs = zip(self._connections, self._rows, strict=True)
        return [(rows.stop - rows.start, server.number) for server, rows in pairs]

    def roll(self, rollout: _native.LinkedRollout) -> None:
        """Runs a rollout whose rows are these servers'.

        Raises:
            EnvError, ConfigError: as of `Connection.receive`; nothing goes on before the next reset then.
            ValueError: the policy chose an action that is no number.
        """
        self._in_flight.quiet()
        found = UNDER_WAY
        try:
            while found != DONE:
                found = self._run(rollout)
                if found >= 0:
                    self._settle(found, rollout)
        except BaseException:
            self._in_flight.stop(HALFWAY)
            raise

    def _run(self, rollout: _native.LinkedRollout) -> int:
        """What the rollout says, or the number of a server whose stream is closed."""
        channels: list[_native.Channel] = []
        try:
            for number, connection in enumerate(self._connections):
                channel = connection.lend()
                if channel is None:
                    return number
                channels.append(channel)
            return rollout.run(channels, MOST_S)
        finally:
            lent = zip(self._connections, channels, rollout.requests(), strict=False)
            for connection, _, (number, under_way, rest) in lent:
                connection.take_back(number, under_way, rest)

    def _settle(self, number: int, rollout: _native.LinkedRollout) -> None:
        """Receives what native code does not, or connects anew."""
        connection, rows = self._connections[number], self._rows[number]
        if not connection.pending:
            connection.mend()
            return
        found = connection.receive("rows")
        self._arrivals.write(rows, rows.start, found, connection.server)
        try:
            rollout.take(
                number,
                found.data,
                found.at,
                found.size,
                found.final_at,
                found.final_size,
            )
        except ValueError as error:
            raise EnvError(
                f"the server at {connection.server} sent something else than rows: {error}"
            ) from error


def linked_servers(
    connections: list[Connection],
    rows: list[slice],
    arrivals: Arrivals,
    in_flight: InFlight,
) -> LinkedServers | None:
    """Servers whose plain rows, all of them valid, come over Unix sockets; None of others."""
    spec = arrivals.spec
    for connection, its in zip(connections, rows, strict=True):
        there = connection.plane == UNIX and connection.capabilities.always_valid
        if not there or not fits_native(spec, its.stop - its.start):
            return None
    return LinkedServers(connections, rows, arrivals, in_flight)
