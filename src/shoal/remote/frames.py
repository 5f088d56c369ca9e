"""Frames on a byte stream: messages after their lengths, which are checked before anything is allocated."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
from math import inf

from shoal import _native
from shoal.types import EnvError

LENGTH = struct.Struct("<I")
MOST_BYTES = 256 << 20
"""Of one message."""
CHUNK = 256 << 10
SPIN_S = 1e-3
"""How long a wait looks before it sleeps: a step of a few rows of a simulator takes a tenth of it."""
ROOM_MS = 100
RDHUP = getattr(select, "POLLRDHUP", 0)
"""Linux says so where the other side sends no more; elsewhere only a stream that is closed both ways is noticed."""


class Frames:
    """A connected socket, encrypted or not, as frames. One thread receives; any may send."""

    def __init__(self, connected: socket.socket, words: str = "") -> None:
        """`words`: what the frames go over. The socket, which may be an `ssl.SSLSocket`, is closed with this object."""
        self._socket, self.words = connected, words
        self.most_bytes = MOST_BYTES
        """Of a message that is received."""
        self.patience_s = inf
        """What sending a message may take; `limit_sends` sets it."""
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._encrypted = isinstance(connected, ssl.SSLSocket)
        self._channel: _native.Channel | None = None
        """For native calls, once there was one."""
        connected.settimeout(0.0 if self._encrypted else None)
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        self._end = select.poll()
        self._end.register(connected, RDHUP)
        self._room = select.poll()
        self._room.register(connected, select.POLLOUT)
        self._chunk = bytearray(CHUNK)
        self._view = memoryview(self._chunk)
        self._first = self._last = 0
        """What of the chunk is received and not handed over."""
        self._spins = True
        """Whether the last wait was a short one."""
        self._lock = threading.Lock()
        """Of an encrypted stream, which one thread at a time may read or write."""

    def send(self, data: bytes) -> None:
        """Sends a message; OSError where the other side is gone."""
        if not self._encrypted:
            self._socket.sendall(LENGTH.pack(len(data)) + data)
            return
        left = memoryview(LENGTH.pack(len(data)) + data)
        deadline = time.monotonic() + self.patience_s
        while left:
            try:
                with self._lock:
                    left = left[self._socket.send(left) :]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if time.monotonic() > deadline:
                    raise TimeoutError("it takes nothing any more") from None
                self._room.poll(ROOM_MS)

    def comes(self, timeout_s: float) -> bool:
        """Whether a message begins to come within so many seconds; none of it is lost where it does not.

        EOFError: the other side has closed the stream.
        """
        if self._first == self._last:
            try:
                self._fill(time.monotonic() + timeout_s)
            except TimeoutError:
                return False
        return True

    def receive(self, timeout_s: float) -> bytes:
        """The next message.

        Raises:
            TimeoutError: it did not come in so many seconds.
            EOFError: the other side has closed the stream.
            EnvError: it is longer than any message may be.
        """
        deadline = time.monotonic() + timeout_s
        if self._first == self._last:
            self._fill(deadline)
        start = self._first + LENGTH.size
        if start <= self._last:
            (size,) = LENGTH.unpack_from(self._chunk, self._first)
            if start + size <= self._last and size <= self.most_bytes:
                self._first = start + size
                return bytes(self._view[start : self._first])
        (size,) = LENGTH.unpack(self._take(LENGTH.size, deadline))
        if size > self.most_bytes:
            raise EnvError(
                f"a message of {size:,} bytes is announced, more than the {self.most_bytes:,} that one may have"
            )
        return self._take(size, deadline)

    def lend(self) -> _native.Channel | None:
        """The socket, for a native call that sends and receives in place of this object until `take_back`.

        None where it is encrypted; EOFError where it is closed.
        """
        if self._encrypted:
            return None
        if self._channel is None:
            try:
                self._channel = _native.Channel(self._socket.fileno())
            except RuntimeError as error:
                raise EOFError(str(error)) from None
        self._channel.load(bytes(self._view[self._first : self._last]))
        return self._channel

    def take_back(self, rest: bytes, *, quiet: bool = False) -> None:
        """After a native call, which left the `rest` of a frame to be sent; OSError where the other side is gone.

        `quiet`: it has waited in vain for a while.
        """
        assert self._channel is not None
        unread = self._channel.unread
        self._view[: len(unread)] = unread
        self._first, self._last = 0, len(unread)
        self._spins = not quiet
        if rest:
            self._socket.sendall(rest)

    def limit_sends(self, seconds: float) -> None:
        """From now on a message that the other side does not take in so many seconds is given up: OSError."""
        self.patience_s = seconds
        whole = int(seconds)
        packed = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, packed)

    @property
    def broken(self) -> bool:
        """Whether the other side has closed the stream, or it was cut; what was received before can be read still."""
        return self._socket.fileno() < 0 or bool(self._end.poll(0))

    def close(self) -> None:
        """Closes the socket; whoever receives there gets EOFError."""
        with contextlib.suppress(OSError):  # it may not be connected any more
            # An SSLSocket's own first forgets that it is encrypted: another thread's message could go as it is.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        self._socket.close()

    def _take(self, size: int, deadline: float) -> bytes:
        """So many bytes, of which some may have come already."""
        if size and self._first == self._last:
            self._fill(deadline)
        if self._last - self._first >= size:
            self._first += size
            return bytes(self._view[self._first - size : self._first])
        parts = bytearray(self._view[self._first : self._last])
        self._first = self._last = 0
        while len(parts) < size:
            count = self._read(deadline)
            wanted = min(count, size - len(parts))
            parts += self._view[:wanted]
            self._first, self._last = wanted, count
        return bytes(parts)

    def _fill(self, deadline: float) -> None:
        """The chunk, all of which was handed over, with what comes next."""
        self._first = self._last = 0
        self._last = self._read(deadline)

    def _read(self, deadline: float) -> int:
        """Fills the chunk with what there is; how many bytes that is.

        Where the last wait was short it looks for a while before it sleeps, offering its core to others: to wake a
        thread takes longer than what comes between two messages.
        """
        begun = until = 0.0
        while True:
            try:
                count = self._receive_some()
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                now = time.monotonic()
                if not begun:
                    begun = now
                    until = now + SPIN_S * self._spins
                if now < until:
                    os.sched_yield()
                elif now > deadline:
                    raise TimeoutError from None
                else:
                    self._poll.poll((deadline - now) * 1e3)
                    until = now  # half of an encrypted record is no message yet
                continue
            except OSError as error:
                raise EOFError(str(error)) from error
            if not count:
                raise EOFError("the stream is closed")
            self._spins = not begun or time.monotonic() - begun < SPIN_S
            return count

    def _receive_some(self) -> int:
        """Does not wait."""
        if not self._encrypted:
            return self._socket.recv_into(self._chunk, 0, socket.MSG_DONTWAIT)
        with self._lock:
            return self._socket.recv_into(self._chunk)
