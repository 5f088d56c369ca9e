"""A client's calls to a server besides its batches: what it is, a session, and the streams that the batches go over."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from shoal.remote import environments_pb2 as wire
from shoal.remote import environments_pb2_grpc as service
from shoal.remote.plane import again, connect
from shoal.remote.sessions import PROTOCOL
from shoal.remote.streams import (
    FrameStream,
    GrpcStream,
    SessionGoneError,
    detail,
    resume,
)
from shoal.remote.trust import channel_to
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.remote.frames import Frames
    from shoal.remote.settings import Remote
    from shoal.remote.streams import Stream

CLOSING_S = 0.5
"""What a server may take to hear that a session is over; else it finds out by itself."""


class Caller:
    """A channel to a server."""

    def __init__(
        self, server: str, timeout_s: float, remote: Remote, *, encrypted: bool
    ) -> None:
        """Asks the server what it is; ConfigError where nobody answers, or somebody of another protocol."""
        self._server, self._timeout_s, self._remote = server, timeout_s, remote
        self._channel, self._said = channel_to(server, remote, encrypted=encrypted)
        self._stub = service.EnvironmentsStub(self._channel)
        try:
            asked = wire.DescribeRequest(protocol=PROTOCOL)
            self.about: Any = self._stub.Describe(
                asked, timeout=timeout_s, metadata=self._said
            )
        except grpc.RpcError as error:
            self._channel.close()
            raise ConfigError(_why_not(server, error, encrypted=encrypted)) from error
        if self.about.protocol != PROTOCOL:
            self._channel.close()
            raise ConfigError(
                f"the server at {server} speaks protocol {self.about.protocol}, this client {PROTOCOL}; install the "
                "same shoal on both sides"
            )

    def open(self, asked: Any) -> tuple[Any, Stream]:
        """What the server says of a new session, and its first stream; ConfigError where there is none."""
        frames = None
        if self._remote.plane != "grpc":
            frames = connect(self._server, self.about, self._remote, self._timeout_s)
        try:
            found = self._stub.Open(asked, timeout=self._timeout_s, metadata=self._said)
        except grpc.RpcError as error:
            if frames is not None:
                frames.close()
            raise ConfigError(f"{self._server}: {_words(error)}") from error
        stream = self._stream(frames)
        try:
            resume(stream, found.session, self._timeout_s)
        except (OSError, EOFError, SessionGoneError) as error:
            stream.close()
            raise ConfigError(
                f"the server at {self._server} gave a session and ended it at once: {error}"
            ) from error
        return found, stream

    def dial(self, session: str, plane: str, timeout_s: float) -> Stream:
        """Another stream of a session, over what it went over before; errors as `Link` takes them."""
        frames = None
        if plane != GrpcStream.plane:
            frames = again(plane, self._server, self.about, self._remote, timeout_s)
        stream = self._stream(frames)
        try:
            resume(stream, session, timeout_s)
        except BaseException as error:
            stream.close()
            if isinstance(error, EOFError) and "refused" in str(error):
                raise ConnectionRefusedError(str(error)) from error  # as gRPC says it
            raise
        return stream

    def end(self, session: str) -> None:
        """Tells the server that a session is over."""
        asked = wire.SessionRequest(session=session)
        with suppress(grpc.RpcError):  # the server is gone, or hears nothing now
            self._stub.Close(asked, timeout=CLOSING_S, metadata=self._said)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _stream(self, frames: Frames | None) -> Stream:
        if frames is None:
            return GrpcStream(self._channel, self._said)
        return FrameStream(frames, self._timeout_s)


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
