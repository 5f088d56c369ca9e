"""Progress of what takes long: lines on stderr, none of what is done at once."""

from __future__ import annotations

import sys
import time

PATIENCE_S = 5.0
"""Seconds without a word."""


class Progress:
    """Says on stderr how far a command is, a line every five seconds at most."""

    def __init__(self, command: str) -> None:
        """`command` begins each line."""
        self._command = command
        self._began = self._said = time.perf_counter()

    def at(self, what: str) -> None:
        """How far it is; said unless another line was said a moment ago."""
        if time.perf_counter() - self._said >= PATIENCE_S:
            self._say(what)

    def done(self, what: str) -> None:
        """A part that is done; said where all of it takes longer than a moment."""
        if time.perf_counter() - self._began >= PATIENCE_S:
            self._say(what)

    def _say(self, what: str) -> None:
        self._said = time.perf_counter()
        seconds = self._said - self._began
        print(f"{self._command}: {what}, {seconds:.0f} s", file=sys.stderr, flush=True)
