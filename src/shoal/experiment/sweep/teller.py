"""What a sweep shows: a line for each trial, and on a terminal below them what runs now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from shoal.types.text import printable

if TYPE_CHECKING:
    from rich.status import Status

EVERY_S = 0.5
"""How often the line of what runs is drawn again."""


class Teller:
    """Prints lines, or nothing; and keeps one line of what runs at the foot of a terminal."""

    def __init__(self, *, silent: bool) -> None:
        """Nothing is shown yet."""
        self._console = Console(highlight=False, soft_wrap=True, quiet=silent)
        self._status: Status | None = None
        self._drawn_s = 0.0

    def say(self, line: str) -> None:
        """Prints a line, for good."""
        self._console.print(Text(printable(line)))

    def show(self, running: str) -> None:
        """Replaces the line of what runs, where there is a terminal; nothing while it is drawn often enough."""
        if not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        if time.monotonic() - self._drawn_s > EVERY_S:
            self._drawn_s = time.monotonic()
            self._status.update(Text(printable(running, 200)))

    def close(self) -> None:
        """Takes the line of what runs away."""
        if self._status is not None:
            self._status.stop()
            self._status = None
