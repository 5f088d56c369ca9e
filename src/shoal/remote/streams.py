"""A client's stream to a server, over gRPC or as frames: requests one way, replies the other."""

from __future__ import annotations

import queue
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from shoal.remote import environments_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.remote.frames import Frames


class Stream(Protocol):
    """What a connection needs of its stream."""

    plane: str
    """What it goes over, in words."""

    def send(self, request: Any) -> None:
        """Sends a request; EOFError where the server is gone."""
        ...

    def receive(self, timeout_s: float) -> Any:
        """The next reply; TimeoutError where none comes, EOFError where the server is gone."""
        ...

    def look(self) -> None:
        """Called now and then by another thread."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class GrpcStream:
    """The bidirectional call `Session`. A reply has no deadline of its own there: a thread looks after it."""

    plane = "gRPC"

    def __init__(self, stub: Any, said: tuple[tuple[str, str], ...]) -> None:
        """`said`: the metadata of the call."""
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._replies: Any = stub.Session(_until_none(self._requests), metadata=said)
        self._deadline = 0.0
        """Of the reply that is waited for; 0 where none is."""
        self._late = False

    def send(self, request: Any) -> None:
        """Sends a request."""
        self._requests.put(request)

    def receive(self, timeout_s: float) -> Any:
        """The next reply."""
        self._deadline = time.monotonic() + timeout_s
        try:
            return next(self._replies)
        except StopIteration:
            raise EOFError("it ended the session") from None
        except grpc.RpcError as error:
            if self._late:
                raise TimeoutError from None
            raise EOFError(detail(error)) from None
        finally:
            self._deadline = 0.0

    def look(self) -> None:
        """Gives up a reply that is late."""
        if 0 < self._deadline < time.monotonic():
            self._late = True
            self._replies.cancel()

    def close(self) -> None:
        """Ends the call."""
        self._requests.put(None)
        self._replies.cancel()


class FrameStream:
    """A session that was opened by gRPC and goes on over a socket of its own."""

    def __init__(self, frames: Frames, session: str, plane: str) -> None:
        """Takes the session over."""
        self.plane, self._frames = plane, frames
        frames.send(session.encode())

    def send(self, request: Any) -> None:
        """Sends a request."""
        try:
            self._frames.send(request.SerializeToString())
        except OSError as error:
            raise EOFError(str(error)) from error

    def receive(self, timeout_s: float) -> Any:
        """The next reply."""
        try:
            return wire.Reply.FromString(self._frames.receive(timeout_s))
        except DecodeError as error:
            raise EOFError("it sent what is no message") from error

    def look(self) -> None:
        """Nothing: `receive` has a deadline."""

    def close(self) -> None:
        """Closes the socket."""
        with suppress(OSError):
            self._frames.close()


def _until_none(requests: queue.SimpleQueue[Any]) -> Iterator[Any]:
    while (request := requests.get()) is not None:
        yield request


def detail(error: Any) -> str:
    """What gRPC says of a call that failed."""
    code = error.code()
    return f"{code.name}: {error.details()}"
