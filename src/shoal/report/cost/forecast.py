"""Forecast: when a run that goes on may reach its threshold, as its own curve says it, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEAST = 8
"""Points of the curve, with fewer of which nothing is said."""
SHARE = 0.5
"""Of a run's time: what its last part tells how it goes on."""
LOW, HIGH = 10, 90
"""Percentiles of the slopes between any two points of that part."""
BENDS = 3.0
"""Curves bend: the range goes at least from a third to three times what is likely, which held in five of six forecasts
on recorded runs (`python -m benchmarks.forecasts`)."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds of training that are left until the mean return reaches the threshold."""

    soonest_s: float
    likely_s: float
    latest_s: float
    """Infinite where the slopes do not say that it is ever reached."""
    at_end_s: float
    """Seconds until the run ends anyway."""
    reached: bool = False

    def said(self) -> str:
        """In a sentence, honest about what it is."""
        if self.reached:
            return "the mean return is at the threshold"
        if self.likely_s == inf:
            return (
                "no forecast: the mean return has not risen in the last half of the run, so nothing says when the "
                f"threshold is reached; the run ends in {duration(self.at_end_s)}"
            )
        late = "or never" if self.latest_s == inf else duration(self.latest_s)
        told = (
            f"the threshold may be reached in {duration(self.likely_s)} ({duration(self.soonest_s)} to {late}), if the "
            "return goes on as in the last half of the run: learning curves bend, so this is no promise"
        )
        if self.likely_s > self.at_end_s:
            told += f"; the run ends before, in {duration(self.at_end_s)}"
        return told


def forecast(
    lines: Sequence[dict[str, Any]], threshold: float, total_timesteps: int
) -> Forecast | None:
    """What the lines of metrics say; None where there are too few.

    The slope is the median of those between any two points of the last half (Theil and Sen), so that some outliers do
    not move it; the range is that of the slopes' percentiles, widened by what curves were seen to bend.
    """
    points = [
        (line["time/elapsed"], line["episode/return"], line["step"])
        for line in lines
        if line.get("time/elapsed") is not None
        and line.get("episode/return") is not None
    ]
    if len(points) < LEAST:
        return None
    time_s, returns, steps = np.array(points, np.float64).T
    left = max(0.0, total_timesteps - steps[-1])
    speed = steps[-1] / max(time_s[-1], 1e-9)
    at_end_s = left / speed if speed > 0 else inf
    late = time_s >= time_s[-1] * (1 - SHARE)
    time_s, returns = time_s[late], returns[late]
    if len(returns) < LEAST // 2:
        return None
    now = float(np.median(returns[-3:]))
    if now >= threshold:
        return Forecast(0.0, 0.0, 0.0, at_end_s, reached=True)
    slopes = _slopes(time_s, returns)
    steep, middle, flat = np.percentile(slopes, [HIGH, 50, LOW])
    needed = threshold - now
    soonest, likely, latest = (_until(needed, x) for x in (steep, middle, flat))
    soonest, latest = min(soonest, likely / BENDS), max(latest, likely * BENDS)
    return Forecast(soonest, likely, latest, at_end_s)


def _slopes(
    time_s: NDArray[np.float64], returns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Between any two points that are not next to each other; of many points some hundred."""
    every = max(1, len(returns) // 200)
    time_s, returns = time_s[::every], returns[::every]
    first, second = np.triu_indices(len(returns), 1)
    apart = time_s[second] - time_s[first]
    far = apart >= max(float(apart.max()) / 4, 1e-9)
    return (returns[second] - returns[first])[far] / apart[far]


def _until(needed: float, slope: float) -> float:
    return needed / slope if slope > 0 else inf


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`, `4.2 days`."""
    if seconds == inf:
        return "never"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
