"""Rules of rewards and values: their scale, and what it does to the losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.report.doctor.finding import CAUSE, Finding

if TYPE_CHECKING:
    from shoal.report.doctor.evidence import Evidence

HUGE_LOSS = 1e4
"""A value loss of errors of a hundred."""
CLIPPED = 100.0
"""Times max_grad_norm: a gradient that long is shortened to almost nothing."""


def scale_too_large(run: Evidence) -> Finding | None:
    """Rewards are so large that the value loss takes all of the gradient."""
    loss, norm = run.late("loss/value"), run.late("loss/grad_norm")
    most = run.setting("max_grad_norm")
    if run.course.well or loss is None or norm is None or not most:
        return None
    if loss < HUGE_LOSS or norm < CLIPPED * most:
        return None
    scale = run.setting("reward_scale", 1.0)
    smaller = scale * (10.0 / loss) ** 0.5
    what = (
        f"rewards are too large: the value loss is {loss:.3g}, and gradients of norm {norm:.3g} are shortened to "
        f"{most:g}, so that the policy's part of them is lost"
    )
    advice = f"reward_scale={smaller:.1g} (it is {scale:g}), or normalize_reward; values are best of the order of 1"
    numbers = {"loss/value": loss, "loss/grad_norm": norm, "reward_scale": scale}
    return Finding("reward-scale-too-large", CAUSE + 7, what, advice, numbers)
