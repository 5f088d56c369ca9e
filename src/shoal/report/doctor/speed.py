"""Rules of speed: what a run waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.report.doctor.finding import SPEED, Finding
from shoal.run.bottleneck import SHORTEST_S, bottleneck

if TYPE_CHECKING:
    from shoal.report.doctor.evidence import Evidence

MOST, SLOW_MS = 0.7, 0.2
"""A share of the time, and milliseconds for a step of one environment: slower than both is a slow environment."""


def slow_environment(run: Evidence) -> Finding | None:
    """Most of the time goes into stepping environments, which are slow."""
    spent, steps = run.spent, run.values("step")
    if spent is None or spent.elapsed_s < SHORTEST_S or run.groups or len(steps) < 2:
        return None
    share = spent.share("environment")
    each = 1000 * spent.seconds.get("environment", 0.0) / max(1.0, steps[-1] - steps[0])
    if share < MOST or each < SLOW_MS:
        return None
    what = f"the environment is slow: {100 * share:.0f} % of the time goes into stepping it, {each:.3g} ms for a step"
    numbers = {"share": share, "ms_per_step": each, "seconds": spent.elapsed_s}
    return Finding(
        "slow-environment", SPEED, what, bottleneck(spent, run.engine), numbers
    )
