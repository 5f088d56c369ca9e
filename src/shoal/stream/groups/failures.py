"""Answers that an engine broke off, and how often it did so without a token in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Key = tuple[int, int]
"""Of an answer, and its number."""


class Failures:
    """So many in a row are gone on after."""

    def __init__(
        self, engine: str, most: int, tell: Callable[[str], None] | None
    ) -> None:
        """None so far; `engine`: as messages call it, `tell`: told of each."""
        self.lost: list[Key] = []
        """Answers whose rest nobody draws now."""
        self._engine, self._most, self._tell = engine, most, tell
        self._left, self._why = most, ""

    def add(self, keys: Iterable[Key], why: str) -> None:
        """Answers were broken off."""
        self.lost += keys
        self._why = why

    def heard(self) -> None:
        """A token came."""
        self._left = self._most

    def taken(self) -> list[Key]:
        """The answers whose rest is to be asked for; from now on they are not lost.

        Raises:
            EnvError: there were too many failures in a row.
        """
        if not self._left:
            raise EnvError(
                f"{self._engine} broke off {self._most + 1} times in a row, the last time: {self._why}"
            )
        self._left -= 1
        lost, self.lost = self.lost, []
        if self._tell is not None:
            self._tell(
                f"{self._engine} broke off: {self._why}; it is asked for the rest of {len(lost)} answers"
            )
        return lost
