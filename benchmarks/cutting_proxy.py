"""A proxy between client and server that cuts connections, in the middle of messages too, or stops passing on."""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np

CHUNK = 65_536
ABRUPTLY = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Listens on a port of its own, or on a path for a Unix socket; `close` or `with` ends it."""

    def __init__(self, target: tuple[str, int] | str, rng: np.random.Generator) -> None:
        """`target`: the server's address, or its path."""
        self.target, self._rng = target, rng
        self.mean_bytes = 0.0
        """If not 0, each connection is cut after a random number of bytes with this mean."""
        self.passing = threading.Event()
        """Not set: connections stay, and nothing comes through."""
        self.passing.set()
        self.refusing = False
        self.cuts = 0
        self._folder = tempfile.TemporaryDirectory(prefix="proxy-")
        self._lock = threading.Lock()
        self._open: list[tuple[socket.socket, socket.socket]] = []
        family = socket.AF_UNIX if isinstance(target, str) else socket.AF_INET
        self._listening = socket.socket(family, socket.SOCK_STREAM)
        if isinstance(target, str):
            self.path, self.port = str(Path(self._folder.name) / "socket"), 0
            self._listening.bind(self.path)
        else:
            self._listening.bind(("127.0.0.1", 0))
            self.path, self.port = "", int(self._listening.getsockname()[1])
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CuttingProxy:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        self.close()

    def close(self) -> None:
        """Cuts all, and listens no longer."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.passing.set()
        self.cut()
        self._folder.cleanup()

    def cut(self, *, abruptly: bool = True) -> None:
        """Cuts all connections that there are; abruptly: with a reset, as a machine does that was started anew."""
        with self._lock:
            pairs, self._open = self._open, []
        for pair in pairs:
            self._cut(pair, abruptly=abruptly)

    def _cut(self, pair: tuple[socket.socket, socket.socket], *, abruptly: bool) -> None:
        self.cuts += 1
        for side in pair:
            with suppress(OSError):
                if abruptly and side.family != socket.AF_UNIX:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABRUPTLY)
                side.shutdown(socket.SHUT_RDWR)
            side.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(client.family, socket.SOCK_STREAM)
            try:
                if self.refusing:
                    raise ConnectionRefusedError
                server.connect(self.target)
            except OSError:
                client.close()
                server.close()
                continue
            pair = client, server
            left = [float(self._rng.exponential(self.mean_bytes)) if self.mean_bytes else np.inf]
            with self._lock:
                self._open.append(pair)
            for one, other in (pair, pair[::-1]):
                threading.Thread(target=self._pump, args=(one, other, pair, left), daemon=True).start()

    def _pump(
        self, one: socket.socket, other: socket.socket, pair: tuple[socket.socket, socket.socket], left: list[float]
    ) -> None:
        try:
            while data := one.recv(CHUNK):
                self.passing.wait()
                passed = data[: int(min(left[0], len(data)))]
                left[0] -= len(data)
                other.sendall(passed)
                if left[0] <= 0:
                    break
        except OSError:
            pass
        with self._lock:
            if pair not in self._open:
                return
            self._open.remove(pair)
        self._cut(pair, abruptly=left[0] <= 0)
