"""A window of a rule's last numbers."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Recent:
    """The last `size` numbers, of which nothing is said before there are `least`."""

    def __init__(self, size: int, least: int) -> None:
        """Empty."""
        self.least = least
        self.values: deque[float] = deque(maxlen=size)

    @property
    def full(self) -> bool:
        """Whether there are enough."""
        return len(self.values) >= self.least

    def add(self, value: float) -> None:
        """Takes one more in."""
        self.values.append(value)

    @property
    def median(self) -> float:
        """The one in the middle."""
        return sorted(self.values)[len(self.values) // 2]

    def forget(self) -> None:
        """Empties it."""
        self.values.clear()

    def state(self) -> list[float]:
        """All that `restore` needs."""
        return list(self.values)

    def restore(self, saved: Sequence[float]) -> None:
        """Continues from `saved`."""
        self.values.clear()
        self.values.extend(map(float, saved))
