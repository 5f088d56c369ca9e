"""How long workers take for a step: each writes down its last ones, and their parent compares them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shoal.types import Floats

RECENT = 16
"""Tasks of a worker whose times are kept."""
COLUMNS = RECENT + 1
"""Numbers of a worker: how many tasks it has done, and seconds for each row of the last ones."""
FRESH = 4
"""Tasks that every worker must have done since they were compared last."""
QUICK = 4
"""A worker's time is that which a fourth of its last tasks took at most: what interrupts some of them, such as another
program, says nothing of it."""


class Pace:
    """Where a worker writes down how long it takes."""

    def __init__(self, own: Floats) -> None:
        """`own`: its numbers [COLUMNS], in memory that its parent reads."""
        self._own = own

    def note(self, seconds: float, rows: int) -> None:
        """It stepped so many rows in so many seconds."""
        count = int(self._own[0])
        self._own[1 + count % RECENT] = seconds / rows
        self._own[0] = count + 1


class Paces:
    """Compares workers."""

    def __init__(self, all_of: Floats) -> None:
        """`all_of`: the numbers of each [W, COLUMNS]."""
        self._all = all_of
        self._seen = np.zeros(len(all_of))

    def slowest(self) -> float | None:
        """How many times as long as the one in the middle (of two: the other) the slowest worker takes for a step.

        None where there is one worker, or not all of them have done enough since the last call.
        """
        done = self._all[:, 0].copy()
        if len(done) < 2 or (done - self._seen).min() < FRESH:
            return None
        self._seen = done
        times = self._all[:, 1:]
        each = sorted(_quick(times[number]) for number in range(len(times)))
        return each[-1] / max(each[(len(each) - 1) // 2], 1e-9)


def _quick(times: Floats) -> float:
    known = sorted(times[times > 0].tolist())
    return known[(len(known) - 1) // QUICK]
