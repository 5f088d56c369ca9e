"""Whether returns have become what they were a moment ago with the other sign, as where a reward's sign is turned."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

SURE = 7.5
"""Standard errors that both means must be away from 0."""
NEAR = 0.3
"""Share of the mean by which the one of now may be off the other one's mirror image: learning goes on meanwhile."""
ALONE = 0.05
"""Share of the episodes that may have the other sign."""
WIDER = 2.0
"""Times that one spread may be as wide as the other."""
PARTS = 4
"""Windows are remembered once in a part of their size."""
KEPT, TRIED = 256, 3
"""Windows that are remembered, and how many of those that are old enough are compared with."""


@dataclass(frozen=True, slots=True)
class Window:
    """What some episodes in a row came to."""

    total: int
    """Episodes of the run when the last of them ended."""
    mean: float
    spread: float
    below: float
    """The share of their returns that lie below 0."""

    @property
    def error(self) -> float:
        """How many standard deviations of single returns the mean is away from 0."""
        return abs(self.mean) / self.spread if self.spread else math.inf


class Turned:
    """Compares a window of episodes with those before it, but for episodes that were under way in between.

    Only a fall is one: where what was lost before is won now, a policy may simply have learned it at once.
    """

    def __init__(self, size: int, rows: int) -> None:
        """`size`: episodes of a window; `rows`: as many episodes may have been under way when the sign was turned."""
        self.size, self.apart = size, size + rows
        self.windows: deque[Window] = deque(maxlen=KEPT)

    def look(self, returns: Sequence[float], total: int) -> tuple[float, float] | None:
        """The mean return before and now, where one is the other with its sign turned.

        Args:
            returns: a whole window, [size].
            total: episodes of the run so far.
        """
        values = np.asarray(returns)
        below = float((values < 0).mean())
        now = Window(total, float(values.mean()), float(values.std()), below)
        old = [one for one in self.windows if one.total <= total - self.apart]
        found = [one for one in old[-TRIED:] if self._mirrors(one, now)]
        last = self.windows[-1].total if self.windows else -self.size
        if total - last >= self.size / PARTS:
            self.windows.append(now)
        return (found[-1].mean, now.mean) if found else None

    def forget(self) -> None:
        """Begins to compare anew."""
        self.windows.clear()

    def state(self) -> list[list[float]]:
        """All that `restore` needs."""
        return [list(astuple(one)) for one in self.windows]

    def restore(self, saved: Sequence[Sequence[float]]) -> None:
        """Continues from `saved`."""
        self.windows.clear()
        for total, *numbers in saved:
            self.windows.append(Window(int(total), *map(float, numbers)))

    def _mirrors(self, before: Window, now: Window) -> bool:
        sure = SURE / math.sqrt(self.size)
        return (
            before.mean > 0 > now.mean
            and min(before.error, now.error) > sure
            and abs(before.mean + now.mean) <= NEAR * before.mean
            and before.below <= ALONE
            and now.below >= 1 - ALONE
            and max(before.spread, now.spread)
            <= WIDER * min(before.spread, now.spread) + NEAR * before.mean
        )
