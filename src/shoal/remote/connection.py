"""A client's connection to one server: requests in order, their replies in the same order, none waited for forever."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from shoal.remote import environments_pb2 as wire
from shoal.remote import environments_pb2_grpc as service
from shoal.remote.description import read_description
from shoal.remote.plane import connect
from shoal.remote.server import OPTIONS
from shoal.remote.sessions import PROTOCOL
from shoal.remote.streams import FrameStream, GrpcStream, detail
from shoal.remote.trust import channel_to
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from shoal.remote.settings import Remote
    from shoal.remote.streams import Stream

LOOK_S = 0.25
"""How often somebody looks whether a reply is late."""
PING_S = 10.0
"""A session that asks for nothing says that it is there so often."""
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
        self._channel, self._said = channel_to(
            server, remote, OPTIONS, encrypted=encrypted
        )
        self._stub = service.EnvironmentsStub(self._channel)
        try:
            asked = wire.DescribeRequest(protocol=PROTOCOL)
            found = self._stub.Describe(asked, timeout=timeout_s, metadata=self._said)
        except grpc.RpcError as error:
            self._channel.close()
            raise ConfigError(_why_not(server, error, encrypted=encrypted)) from error
        if found.protocol != PROTOCOL:
            self._channel.close()
            raise ConfigError(
                f"the server at {server} speaks protocol {found.protocol}, this client {PROTOCOL}; install the same "
                "shoal on both sides"
            )
        self._description = found
        self.spec, self.capabilities = read_description(found.spec)
        self._stream: Stream | None = None
        self._number = 0
        self.pending: deque[int] = deque()
        """Requests whose replies are waited for."""
        self._lock = threading.Lock()
        self._last_sent = time.monotonic()
        self._closed = threading.Event()

    @property
    def plane(self) -> str:
        """What the batches go over, in words."""
        assert self._stream is not None
        return self._stream.plane

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
        asked = wire.OpenRequest(protocol=PROTOCOL, num_envs=num_envs, playing=playing)
        frames = None
        if self._remote.plane != "grpc":
            frames = connect(
                self.server, self._description, self._remote, self.timeout_s
            )
        if frames is None:
            self._stream = GrpcStream(self._stub, self._said)
            self.send(open=asked)
            self.receive("opened")
        else:
            try:
                opened = self._stub.Open(
                    asked, timeout=self.timeout_s, metadata=self._said
                )
            except grpc.RpcError as error:
                frames.close()
                raise ConfigError(f"{self.server}: {_words(error)}") from error
            self._stream = FrameStream(frames, opened.session, frames.words)
        args = weakref.ref(self), self._closed
        threading.Thread(target=_watch, args=args, daemon=True).start()

    def send(self, **what: Any) -> None:
        """Sends a request of one kind."""
        assert self._stream is not None
        with self._lock:
            self._number += 1
            self._last_sent = time.monotonic()
            self.pending.append(self._number)
            with suppress(EOFError):  # receive says that the server is gone
                self._stream.send(wire.Request(number=self._number, **what))

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
            raised = KINDS.get(reply.failure.kind, EnvError)
            said = reply.failure.text
            if raised is EnvError and reply.failure.kind != "EnvError":
                said = f"{reply.failure.kind}: {said}"
            raise raised(f"{self.server}: {said}")
        if found != kind:
            raise EnvError(
                f"the server at {self.server} answered with {found!r} where {kind!r} belongs"
            )
        return getattr(reply, kind)

    def forget(self) -> None:
        """Nobody waits for the replies that are under way."""
        self.pending.clear()

    def close(self) -> None:
        """Ends the session; may be called twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._stream is not None:
            self._stream.close()
        self._channel.close()

    def look(self) -> None:
        """Gives up a reply that is late; says that the client is there."""
        assert self._stream is not None
        self._stream.look()
        with self._lock:
            if time.monotonic() - self._last_sent > PING_S and not self.pending:
                self._number += 1
                self._last_sent = time.monotonic()
                with suppress(EOFError):
                    ping = wire.Request(number=self._number, ping=wire.Ping())
                    self._stream.send(ping)

    def _next(self) -> Any:
        assert self._stream is not None
        try:
            return self._stream.receive(self.timeout_s)
        except TimeoutError:
            raise EnvError(
                f"the server at {self.server} gave no answer for {self.timeout_s:g} s; it hangs, is stopped or cannot "
                "be reached any more"
            ) from None
        except EOFError as error:
            raise EnvError(
                f"the connection to the server at {self.server} is lost ({error})"
            ) from None


def _watch(of: weakref.ref[Connection], closed: threading.Event) -> None:
    """Looks after a connection for as long as it is there."""
    while not closed.wait(LOOK_S):
        connection = of()
        if connection is None:
            return
        connection.look()
        del connection


def _why_not(server: str, error: Any, *, encrypted: bool) -> str:
    """Why there is no session with a server, and what would help."""
    said = detail(error)
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return f"{server}: {said}"
    advice = f"start one there: shoal serve ENV --num-envs N --listen {server}"
    if encrypted:
        advice += ", with a certificate of that host's name which remote.ca has signed and which has not expired"
    else:
        advice += f"; or write grpcs://{server} where it has a certificate"
    return f"no server of environments answers at {server} ({said}); {advice}"


def _words(error: Any) -> str:
    """What a server says of a call that it refused."""
    return str(error.details())
