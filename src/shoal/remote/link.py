"""A session's way to its server: a stream, and another one in its place where the connection breaks.

Requests are numbered, and kept until their replies come. On the new stream those without one are sent again; the server
steps each number once, and has kept the replies that were lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from shoal.remote import environments_pb2 as wire
from shoal.remote.streams import SessionGoneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal import _native
    from shoal.remote.streams import Stream

_LOG = logging.getLogger(__name__)
PING = wire.Request(ping=wire.Ping()).SerializeToString()
PAUSE_S = 0.25
"""Between two tries to reach the server again."""
REFUSALS = 3
"""After so many in a row nobody listens there any more: the session has ended with the server."""


class Link:
    """One thread sends and receives; another may look after it, and one of the two connects anew."""

    def __init__(
        self,
        server: str,
        stream: Stream,
        dial: Callable[[float], Stream],
        reconnect_s: float,
    ) -> None:
        """Takes a stream over.

        Args:
            server: HOST:PORT, for sentences.
            stream: the first one.
            dial: another stream of the same session, in so many seconds at most. Its errors: SessionGoneError where the
                server does not know the session, ConnectionRefusedError or FileNotFoundError where
                nobody listens, OSError or EOFError else.
            reconnect_s: how long it is tried after a connection broke; 0: not at all.
        """
        self._server, self._stream = server, stream
        self._dial, self._reconnect_s = dial, reconnect_s
        self._unanswered: deque[tuple[int, bytes]] = deque()
        self._lock = threading.Lock()
        """Held where something is sent."""
        self._connecting = threading.Lock()
        self._broken_s: float | None = None
        """When the connection broke, if no reply has come since."""
        self._lost = ""
        """Why it was given up."""
        self._closed = threading.Event()
        self.sent_s = time.monotonic()

    @property
    def plane(self) -> str:
        """What it goes over, in words."""
        return self._stream.plane

    @property
    def lost(self) -> bool:
        """Whether the session was given up."""
        return bool(self._lost)

    def send(self, number: int, data: bytes) -> None:
        """Sends the request of a number. Where the connection is broken it is sent later: `receive` sees to that."""
        with self._lock:
            self.sent_s = time.monotonic()
            self._unanswered.append((number, data))
            with suppress(EOFError):
                self._stream.send(data)

    def receive(self, timeout_s: float) -> Any:
        """The next reply.

        Raises:
            TimeoutError: none came in so many seconds.
            EOFError: the session is lost.
        """
        while True:
            stream = self._stream
            try:
                reply = stream.receive(timeout_s)
            except EOFError as error:
                self._connect(stream, str(error))
                continue
            self._broken_s = None
            unanswered = self._unanswered
            while unanswered and unanswered[0][0] <= reply.number:
                unanswered.popleft()
            return reply

    def lend(self) -> _native.Channel | None:
        """The socket that it goes over, for native calls in place of `send` and `receive` until `take_back`.

        Nobody else sends or connects meanwhile. None where it has no such socket, or that is closed.
        """
        self._lock.acquire()
        channel = None
        try:
            with suppress(EOFError):  # the next `receive` says so
                channel = self._stream.lend()
        finally:
            if channel is None:
                self._lock.release()
        return channel

    def take_back(self, number: int, under_way: bytes | None, rest: bytes) -> None:
        """After native calls, which have sent requests up to a number.

        Args:
            number: of the last one.
            under_way: that one, if its reply has not come.
            rest: the bytes at the end of its frame that are still to be sent.
        """
        self._unanswered.clear()
        if under_way is not None:
            self._unanswered.append((number, under_way))
        self.sent_s = time.monotonic()
        try:
            with suppress(EOFError):
                self._stream.take_back(rest)
        finally:
            self._lock.release()

    def mend(self) -> None:
        """Another stream in the place of one that broke while nothing was under way; EOFError where there is none."""
        self._connect(self._stream, "it broke while nobody used it")

    def look(self, ping_s: float) -> None:
        """Called now and then: the server hears something every `ping_s` seconds; a broken connection is noticed."""
        stream = self._stream
        stream.look()
        if self._closed.is_set():
            return
        if stream.broken:
            with suppress(EOFError):  # the next `receive` says so
                self._connect(stream, "it broke while nobody used it")
        elif time.monotonic() - self.sent_s > ping_s:
            with self._lock, suppress(EOFError):
                self.sent_s = time.monotonic()
                self._stream.send(PING)

    def close(self) -> None:
        """Ends the stream."""
        self._closed.set()
        self._stream.close()

    def _connect(self, broken: Stream, why: str) -> None:
        """Another stream in the place of a broken one; EOFError where there is none, with the reason."""
        with self._connecting:
            if self._stream is not broken:
                return  # somebody else was here
            if self._lost:
                raise EOFError(self._lost)
            broken.close()
            if self._broken_s is None:
                self._broken_s = time.monotonic()
            try:
                self._try(self._broken_s + self._reconnect_s, why)
            except EOFError as error:
                self._lost = str(error)
                raise

    def _try(self, deadline: float, why: str) -> None:
        """Tries it until the deadline, but once at least; EOFError where nothing helps."""
        if not self._reconnect_s:
            raise EOFError(why)
        refused = 0
        while not self._closed.is_set():
            try:
                left_s = max(deadline - time.monotonic(), PAUSE_S)
                self._go_on(self._dial(left_s))
            except SessionGoneError as error:
                raise EOFError(
                    f"{why}; it answers again, but {error.args[0]}"
                ) from None
            except (ConnectionRefusedError, FileNotFoundError) as error:
                refused, last = refused + 1, str(error)
            except (OSError, EOFError) as error:
                refused, last = 0, str(error)
            else:
                _LOG.warning(
                    "the connection to the server at %s broke (%s) and is there again; no step was lost",
                    self._server,
                    why,
                )
                return
            if refused == REFUSALS or time.monotonic() + PAUSE_S > deadline:
                raise EOFError(f"{why}; and it cannot be reached again: {last}")
            self._closed.wait(PAUSE_S)
        raise EOFError("it was closed here")

    def _go_on(self, stream: Stream) -> None:
        """Sends again what has no reply; OSError or EOFError where the stream breaks already."""
        with self._lock:
            try:
                for _, data in list(self._unanswered):
                    stream.send(data)
            except BaseException:
                stream.close()
                raise
            self._stream = stream
            if self._closed.is_set():
                stream.close()
