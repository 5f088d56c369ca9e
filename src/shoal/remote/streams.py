"""A client's stream to a server, over gRPC or as frames: requests one way, replies the other."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from shoal.remote import environments_pb2 as wire
from shoal.remote.messages import read_reply
from shoal.types import EnvError

if TYPE_CHECKING:
    from shoal import _native
    from shoal.remote.frames import Frames

UNIX, TLS = "a Unix socket", "a TLS socket"
"""What frames go over, in words."""
NO_MESSAGE = "it sent what is no message"
NAME = "shoal.v1.Environments"
"""Of the service, as gRPC knows it."""


class SessionGoneError(Exception):
    """A server does not know a session any more."""


class Stream(Protocol):
    """What a connection needs of its stream."""

    plane: str
    """What it goes over, in words."""

    @property
    def broken(self) -> bool:
        """Whether it has ended, though nobody has received that yet."""
        ...

    def send(self, data: bytes) -> None:
        """Sends a request; EOFError where the server is gone."""
        ...

    def receive(self, timeout_s: float) -> Any:
        """The next reply, as of `read_reply`; TimeoutError where none comes, EOFError where the server is gone."""
        ...

    def look(self) -> None:
        """Called now and then by another thread."""
        ...

    def lend(self) -> _native.Channel | None:
        """Its socket for a native call, as of `Frames.lend`; None where it has none for that."""
        ...

    def take_back(self, rest: bytes) -> None:
        """After that call; EOFError where the server is gone."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class GrpcStream:
    """The bidirectional call `Session`. A reply has no deadline of its own there: a thread looks after it."""

    plane = "gRPC"

    def __init__(self, channel: Any, said: tuple[tuple[str, str], ...]) -> None:
        """`said`: the metadata of the call."""
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call = channel.stream_stream(f"/{NAME}/Session")
        self._replies = call(iter(self._requests.get, None), metadata=said)
        self._deadline = 0.0
        """Of the reply that is waited for; 0 where none is."""
        self._late = False

    @property
    def broken(self) -> bool:
        """Whether the call has ended."""
        return not self._replies.is_active()

    def send(self, data: bytes) -> None:
        """Sends a request."""
        self._requests.put(data)

    def receive(self, timeout_s: float) -> Any:
        """The next reply."""
        self._deadline = time.monotonic() + timeout_s
        try:
            return read_reply(next(self._replies))
        except DecodeError:
            raise EOFError(NO_MESSAGE) from None
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

    def lend(self) -> None:
        """There is no socket of its own."""

    def take_back(self, rest: bytes) -> None:
        """Nothing was lent."""

    def close(self) -> None:
        """Ends the call."""
        self._requests.put(None)
        self._replies.cancel()


class FrameStream:
    """A session that was opened by gRPC and goes on over a socket of its own."""

    def __init__(self, frames: Frames, timeout_s: float) -> None:
        """`timeout_s`: what the server may take to take a message."""
        self.plane, self._frames = frames.words, frames
        frames.limit_sends(timeout_s)

    @property
    def broken(self) -> bool:
        """Whether the socket is closed by the server."""
        return self._frames.broken

    def send(self, data: bytes) -> None:
        """Sends a request."""
        try:
            self._frames.send(data)
        except OSError as error:
            self.close()  # half of a message may be under way
            raise EOFError(str(error)) from error

    def receive(self, timeout_s: float) -> Any:
        """The next reply."""
        try:
            return read_reply(self._frames.receive(timeout_s))
        except DecodeError as error:
            raise EOFError(NO_MESSAGE) from error
        except (TimeoutError, EnvError):
            self.close()  # half of a message may have come
            raise

    def look(self) -> None:
        """Nothing: `receive` has a deadline."""

    def lend(self) -> _native.Channel | None:
        """The socket, where it is not encrypted."""
        return self._frames.lend()

    def take_back(self, rest: bytes) -> None:
        """The socket is used from here again."""
        try:
            self._frames.take_back(rest)
        except OSError as error:
            self.close()  # half of a message may be under way
            raise EOFError(str(error)) from error

    def close(self) -> None:
        """Closes the socket."""
        with suppress(OSError):
            self._frames.close()


def resume(stream: Stream, session: str, timeout_s: float) -> None:
    """Has a new stream take a session over.

    Raises:
        SessionGoneError: the server does not know the session any more.
        TimeoutError: it says nothing in so many seconds.
        EOFError: the stream has ended.
    """
    first = wire.Request(resume=wire.Resume(session=session))
    stream.send(first.SerializeToString())
    late = threading.Timer(timeout_s, stream.close)
    late.daemon = True
    late.start()
    try:
        reply = stream.receive(timeout_s)
    finally:
        late.cancel()
    if reply.WhichOneof("what") == "failure":
        raise SessionGoneError(reply.failure.text)


def detail(error: Any) -> str:
    """What gRPC says of a call that failed."""
    code = error.code()
    return f"{code.name}: {error.details()}"
