"""The server of the live page: on the loopback alone, a thread a connection, everything behind the gate."""

from __future__ import annotations

import errno
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from shoal.report.page.films import Filming
from shoal.report.page.gate import Gate
from shoal.report.page.handler import Handler
from shoal.types import ConfigError

if TYPE_CHECKING:
    import socket

    from shoal.report.page.watched import Runs

LOOPBACK = "127.0.0.1"
PORT, TRIED = 8790, 50
"""The port that is tried first, and how many."""
MOST_CONNECTIONS = 64
FOLDER = Path(__file__).parent / "static"
HTML = "text/html; charset=utf-8"
KINDS = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Server(ThreadingHTTPServer):
    """Serves one page; `serve_forever` until `shutdown` or Ctrl-C."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, runs: Runs, port: int, gate: Gate | None = None) -> None:
        """Listens; nothing is answered before `serve_forever`.

        Args:
            runs: what is shown.
            port: 0 means any that is free.
            gate: who may ask; a new token unless given.

        Raises:
            OSError: the port is taken, or not this user's to open.
        """
        self.runs, self.gate = runs, gate or Gate()
        self.files, self.filming = static_files(), Filming()
        self._room = BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__((LOOPBACK, port), Handler)

    def server_close(self) -> None:
        """Ends listening, and the film that is being made."""
        super().server_close()
        self.filming.close()

    @property
    def url(self) -> str:
        """The address with the token."""
        return f"http://{LOOPBACK}:{self.server_port}/?token={self.gate.token}"

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        """Answers in a thread of its own; of more than MOST_CONNECTIONS at once the newest is closed."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        """What the thread does."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that went away is no error; what is one is printed as ever."""
        import sys

        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]


def listen(runs: Runs, port: int | None = None) -> Server:
    """A server on that port, or on the first free one from PORT on; 0 means any.

    Raises:
        ConfigError: the port is taken, or all of them are.
    """
    for number in range(PORT, PORT + TRIED) if port is None else [port]:
        try:
            return Server(runs, number)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise ConfigError(_taken(port))


def static_files() -> dict[str, tuple[str, bytes]]:
    """The files of the page, by their address: kind and content."""
    found = {"/": (HTML, (FOLDER / "page.html").read_bytes())}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in KINDS:
            found[f"/{path.name}"] = KINDS[path.suffix], path.read_bytes()
    return found


def _taken(port: int | None) -> str:
    if port is None:
        return f"the ports {PORT} to {PORT + TRIED - 1} are taken; --port 0 takes any that is free"
    return f"port {port} is taken or not yours to open; --port 0 takes any that is free"
