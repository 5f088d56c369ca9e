"""A client's connection to one server: requests in order, their replies in the same order, none waited for forever."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal import _native
from shoal.remote import environments_pb2 as wire
from shoal.remote.caller import Caller
from shoal.remote.description import read_description
from shoal.remote.link import Link
from shoal.remote.sessions import PROTOCOL
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.remote.settings import Remote

LOOK_S = 0.25
"""How often somebody looks whether a reply is late."""
PING_S = 10.0
"""A session that asks for nothing says that it is there so often, or three times while the server waits for it."""
KINDS: dict[str, type[Exception]] = {
    "ConfigError": ConfigError,
    "ValueError": ValueError,
}
"""What a server's errors become here, if not EnvError."""


class Connection:
    """A session with a server. Requests may be under way together; each `receive` is the reply to the oldest."""

    def __init__(
        self, server: str, *, timeout_s: float, remote: Remote, encrypted: bool
    ) -> None:
        """Asks the server what it is.

        Args:
            server: HOST:PORT.
            timeout_s: what any reply may take.
            remote: what the two show each other.
            encrypted: whether the server has a certificate.

        Raises:
            ConfigError: nobody answers, or somebody of another protocol or who does not trust this client.
        """
        self.server, self.timeout_s, self._remote = server, timeout_s, remote
        self._encrypted = encrypted
        self._caller = Caller(server, timeout_s, remote, encrypted=encrypted)
        try:
            self.spec, self.capabilities = read_description(self._caller.about.spec)
        except ConfigError:
            self._caller.close()
            raise
        self._link: Link | None = None
        self._session = ""
        self._ping_s = PING_S
        self.number = 0
        """Of the last request."""
        self.pending: deque[int] = deque()
        """Requests whose replies are waited for."""
        self._closed = threading.Event()

    @property
    def plane(self) -> str:
        """What the batches go over, in words."""
        assert self._link is not None
        return self._link.plane

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def again(self, server: str) -> Connection:
        """Another one to the same server, which may be at another HOST:PORT now."""
        return Connection(
            server,
            timeout_s=self.timeout_s,
            remote=self._remote,
            encrypted=self._encrypted,
        )

    def open(self, num_envs: int, *, playing: bool = False) -> None:
        """Takes so many environments of the server's; ConfigError where there are fewer."""
        reconnect_s = self._remote.reconnect_s
        asked = wire.OpenRequest(
            protocol=PROTOCOL,
            num_envs=num_envs,
            playing=playing,
            resume_s=reconnect_s,
        )
        found, stream = self._caller.open(asked)
        self._session = found.session
        self._ping_s = min(PING_S, found.idle_s / 3)
        dial = partial(self._caller.dial, found.session, stream.plane)
        self._link = Link(self.server, stream, dial, reconnect_s)
        args = weakref.ref(self), self._closed
        threading.Thread(target=_watch, args=args, daemon=True).start()

    def send(self, **what: Any) -> None:
        """Sends a request of one kind."""
        number = self.number + 1
        self._post(wire.Request(number=number, **what).SerializeToString())

    def step(self, first: int, count: int, action: list[NDArray[Any]]) -> None:
        """Sends a request to step rows, with the leaves of their actions."""
        self._post(_native.pack_step(self.number + 1, first, count, action))

    def _post(self, data: bytes) -> None:
        """Sends the next request."""
        assert self._link is not None
        self.number += 1
        self.pending.append(self.number)
        self._link.send(self.number, data)

    def receive(self, kind: str) -> Any:
        """The reply of this kind to the oldest request.

        Raises:
            EnvError: the server is gone, or silent for longer than the time-out, or its environment failed.
            ConfigError: the server refuses what was asked.
        """
        expected = self.pending.popleft()
        reply = self._next()
        while reply.number < expected:
            reply = self._next()  # that one was to a ping, or nobody waits for it now
        if reply.number != expected:
            raise EnvError(
                f"the server at {self.server} answered request {reply.number} where {expected} belongs"
            )
        found = reply.WhichOneof("what")
        if found == "failure":
            raise _error_of(reply.failure, self.server)
        if found != kind:
            raise EnvError(
                f"the server at {self.server} answered with {found!r} where {kind!r} belongs"
            )
        return reply if kind == "rows" else getattr(reply, kind)

    def lend(self) -> _native.Channel | None:
        """The socket for native calls, as of `Link.lend`, when no request is under way but the last."""
        assert self._link is not None
        return self._link.lend()

    def take_back(self, number: int, under_way: bytes | None, rest: bytes) -> None:
        """After native calls, as of `Link.take_back`."""
        assert self._link is not None
        self.number = number
        self.pending.clear()
        if under_way is not None:
            self.pending.append(number)
        self._link.take_back(number, under_way, rest)

    def mend(self) -> None:
        """Connects anew where nothing is under way and the stream broke; EnvError where that cannot be."""
        assert self._link is not None
        try:
            self._link.mend()
        except EOFError as error:
            raise self._lost(error) from None

    def forget(self) -> None:
        """Nobody waits for the replies that are under way."""
        self.pending.clear()

    def close(self) -> None:
        """Ends the session; may be called twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._link is not None:
            self._link.close()
            if not self._link.lost:
                self._caller.end(self._session)
        self._caller.close()

    def look(self) -> None:
        """Gives up a reply that is late; says that the client is there."""
        assert self._link is not None
        self._link.look(self._ping_s)

    def _next(self) -> Any:
        assert self._link is not None
        try:
            return self._link.receive(self.timeout_s)
        except TimeoutError:
            raise EnvError(
                f"the server at {self.server} gave no answer for {self.timeout_s:g} s; it hangs, is stopped or cannot "
                "be reached any more"
            ) from None
        except EOFError as error:
            raise self._lost(error) from None

    def _lost(self, error: EOFError) -> EnvError:
        return EnvError(
            f"the connection to the server at {self.server} is lost ({error})"
        )


def _error_of(failure: wire.Failure, server: str) -> Exception:
    """What is raised here where something failed there."""
    raised, said = KINDS.get(failure.kind, EnvError), failure.text
    if raised is EnvError and failure.kind != "EnvError":
        said = f"{failure.kind}: {said}"
    return raised(f"{server}: {said}")


def _watch(of: weakref.ref[Connection], closed: threading.Event) -> None:
    """Looks after a connection for as long as it is there."""
    while not closed.wait(LOOK_S):
        connection = of()
        if connection is None:
            return
        connection.look()
        del connection
