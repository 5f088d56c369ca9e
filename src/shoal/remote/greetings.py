"""Clients that have connected and not said yet which session they are for: so many at a time, and none for long."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

GREETING_S = 10.0
"""What a client may take to say whose session it is for."""
MOST_GREETINGS = 32
"""Clients at a time that have not."""
MOST_GREETING_BYTES = 4_096
"""Of a first message: nobody is known who sends more."""


class Greetings:
    """Counts those who have not said yet who they are."""

    def __init__(self, most: int = MOST_GREETINGS, seconds: float = GREETING_S) -> None:
        """`most` at a time, for so many seconds each."""
        self._most, self._seconds = most, seconds
        self._count = 0
        self._lock = threading.Lock()

    @contextmanager
    def waiting(self, end: Callable[[], None]) -> Generator[None]:
        """While somebody's first message is waited for; `end` ends it where it takes too long.

        Raises:
            ConfigError: as many as there may be wait already.
        """
        with self._lock:
            if self._count >= self._most:
                raise ConfigError(
                    f"{self._count} clients have connected and said nothing yet; this server waits for no more of them"
                )
            self._count += 1
        timer = threading.Timer(self._seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._count -= 1
