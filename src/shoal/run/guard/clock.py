"""Rules on what happens beside learning: speed, staleness, actors that are not heard. They tell, and change no bit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shoal.run.guard.recent import Recent
from shoal.run.guard.rules import Stateless
from shoal.run.guard.seen import Finding

if TYPE_CHECKING:
    from shoal.run.guard.seen import Seen

LATE, USUAL, ENOUGH = 5, 50, 20
"""Checks that are compared, with the median of how many before, and how many there must be."""
LEAST_S = 10.0
"""Seconds that it must have been slow for."""
STALENESS = ("actors/staleness_max", "groups/staleness_max")
SLOWEST = ("speed/slowest_actor", "speed/slowest_worker")
IN_A_ROW = 3
"""Checks of which each must show one that is late."""


class Speed(Stateless):
    """Environment steps do not take many times as long as they did."""

    name = "speed"
    reads = ()

    def __init__(self, slowdown: float) -> None:
        """`slowdown`: how many times is too many."""
        self.slowdown = slowdown
        self._usual, self._late = Recent(USUAL, ENOUGH), Recent(LATE, LATE)
        self._slow_s, self._told = 0.0, False

    def look(self, seen: Seen) -> Finding | None:
        """Compares the last checks with those before; says it once, until it is over."""
        taken = seen.seconds_a_step
        if not math.isfinite(taken):
            return None
        self._late.add(taken)
        if not self._usual.full:
            self._usual.add(taken)
            return None
        usual, late = self._usual.median, self._late.median
        if late <= self.slowdown * usual:
            self._usual.add(taken)
            self._slow_s, self._told = 0.0, False
            return None
        self._slow_s += seen.seconds
        if self._told or self._slow_s < LEAST_S:
            return None
        self._told = True
        said = (
            f"{1 / late:,.0f} environment steps a second are collected, {late / usual:.1f} times fewer than the usual "
            f"{1 / usual:,.0f}"
        )
        return Finding(said, "tell")

    def forget(self) -> None:
        """Nothing: the clock goes on."""


class Told(Stateless):
    """A number of what happens beside stays below a limit; said once, until it is over."""

    def __init__(self, limit: float) -> None:
        """`limit`: what it may be."""
        self.limit, self._told = limit, False

    def above(self, value: float | None) -> bool:
        """Whether it is above the limit, and was not before."""
        if value is None or value <= self.limit:
            self._told = False
            return False
        first, self._told = not self._told, True
        return first


class Staleness(Told):
    """Nothing is learned from later than the run's `max_staleness`."""

    name = "staleness"
    reads = STALENESS

    def look(self, seen: Seen) -> Finding | None:
        """Compares the oldest step of the update."""
        value = seen.number(*self.reads)
        if not self.above(value):
            return None
        said = f"steps were learned from {value:.3g} versions late, more than max_staleness allows"
        return Finding(said, "tell")


class Heartbeat(Told):
    """Every actor and worker is as fast as the others; one that is silent for good ends the run by its time-out.

    They are compared with each other, at the same time: whatever else the machine does slows all of them.
    """

    name = "heartbeat"
    reads = SLOWEST
    late = 0

    def look(self, seen: Seen) -> Finding | None:
        """Compares the slowest one with the one in the middle."""
        value = seen.number(*self.reads)
        if value is None:
            return None
        self.late = self.late + 1 if value > self.limit else 0
        if not self.above(value if self.late >= IN_A_ROW else None):
            return None
        said = f"the slowest worker takes {value:.3g} times as long as the one in the middle"
        if SLOWEST[0] in seen.numbers:
            said = f"the slowest actor takes {value:.3g} times as long as the one in the middle"
        return Finding(said, "tell")
