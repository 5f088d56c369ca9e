"""A client's connection to one server: requests in order, their replies in the same order, none waited for forever."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc

from shoal.remote import environments_pb2 as wire
from shoal.remote import environments_pb2_grpc as service
from shoal.remote.description import read_description
from shoal.remote.server import OPTIONS
from shoal.remote.sessions import PROTOCOL
from shoal.remote.trust import channel_to
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.remote.settings import Remote

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
        self.server, self.timeout_s = server, timeout_s
        self._channel, said = channel_to(server, remote, OPTIONS, encrypted=encrypted)
        self._stub = service.EnvironmentsStub(self._channel)
        try:
            asked = wire.DescribeRequest(protocol=PROTOCOL)
            self.description = self._stub.Describe(
                asked, timeout=timeout_s, metadata=said
            )
        except grpc.RpcError as error:
            self._channel.close()
            raise ConfigError(_why_not(server, error, encrypted=encrypted)) from error
        if self.description.protocol != PROTOCOL:
            self._channel.close()
            raise ConfigError(
                f"the server at {server} speaks protocol {self.description.protocol}, this client {PROTOCOL}; install "
                "the same shoal on both sides"
            )
        self.spec, self.capabilities = read_description(self.description.spec)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._number = 0
        self._pending: deque[int] = deque()
        """Requests whose replies are waited for."""
        self._lock = threading.Lock()
        self._waiting_since = 0.0
        self._last_sent = time.monotonic()
        self._late = False
        self._replies: Any = self._stub.Session(
            _until_none(self._requests), metadata=said
        )
        self._closed = threading.Event()
        watch = threading.Thread(
            target=_watch, args=(weakref.ref(self), self._closed), daemon=True
        )
        watch.start()

    def open(self, num_envs: int) -> None:
        """Takes so many environments of the server's; ConfigError where there are fewer."""
        self.send(open=wire.OpenRequest(protocol=PROTOCOL, num_envs=num_envs))
        self.receive("opened")

    def send(self, **what: Any) -> None:
        """Sends a request of one kind."""
        with self._lock:
            self._number += 1
            self._last_sent = time.monotonic()
            self._pending.append(self._number)
            self._requests.put(wire.Request(number=self._number, **what))

    def receive(self, kind: str) -> Any:
        """The reply of this kind to the oldest request.

        Raises:
            EnvError: the server is gone, or silent for longer than the time-out, or its environment failed.
            ConfigError: the server refuses what was asked.
        """
        expected = self._pending.popleft()
        reply = self._next()
        while (
            reply.number < expected
        ):  # to a ping, or to what nobody waits for any more
            reply = self._next()
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
        self._pending.clear()

    def close(self) -> None:
        """Ends the session; may be called twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._requests.put(None)
        self._replies.cancel()
        self._channel.close()

    def look(self) -> None:
        """Gives up a reply that is late; says that the client is there."""
        now, since = time.monotonic(), self._waiting_since
        if since and now - since > self.timeout_s:
            self._late = True
            self._replies.cancel()
            return
        with self._lock:
            if now - self._last_sent > PING_S and not since and self._number:
                self._number += 1
                self._last_sent = now
                self._requests.put(wire.Request(number=self._number, ping=wire.Ping()))

    def _next(self) -> Any:
        self._waiting_since = time.monotonic()
        try:
            return next(self._replies)
        except StopIteration:
            raise EnvError(f"the server at {self.server} ended the session") from None
        except grpc.RpcError as error:
            raise EnvError(self._why(error)) from None
        finally:
            self._waiting_since = 0.0

    def _why(self, error: grpc.RpcError) -> str:
        if self._late:
            return (
                f"the server at {self.server} gave no answer for {self.timeout_s:g} s; it hangs, is stopped or cannot "
                "be reached any more"
            )
        return (
            f"the connection to the server at {self.server} is lost ({_detail(error)})"
        )


def _until_none(requests: queue.SimpleQueue[Any]) -> Iterator[Any]:
    while (request := requests.get()) is not None:
        yield request


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
    said = _detail(error)
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return f"{server}: {said}"
    advice = f"start one there: shoal serve ENV --num-envs N --listen {server}"
    if encrypted:
        advice += ", with a certificate of that host's name which remote.ca has signed and which has not expired"
    else:
        advice += f"; or write grpcs://{server} where it has a certificate"
    return f"no server of environments answers at {server} ({said}); {advice}"


def _detail(error: Any) -> str:
    code = error.code()
    return f"{code.name}: {error.details()}"
