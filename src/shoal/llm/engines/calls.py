"""A request under way, which another thread may stop."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from http.client import HTTPConnection


class Call:
    """The connections that a request has opened. `stop` closes them, whatever waits for them."""

    def __init__(self) -> None:
        """None is open."""
        self.opened: list[HTTPConnection] = []
        self.stopped = threading.Event()

    def stop(self) -> None:
        """Ends the request; the server notices that nobody listens."""
        self.stopped.set()
        for connection in list(self.opened):
            sock = connection.sock
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
