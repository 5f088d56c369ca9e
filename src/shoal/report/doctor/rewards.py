"""Rules of what goes in: the scale of rewards and observations, and how far the discount looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.report.doctor.finding import CAUSE, Finding

if TYPE_CHECKING:
    from shoal.report.doctor.evidence import Evidence

HUGE_LOSS = 1e4
"""A value loss of errors of a hundred."""
STEEP = 6.0
"""A gradient's norm beyond the root of the value loss: only large inputs make gradients so steep."""
QUARTER = 0.25
"""Of a run's steps: before that one that goes on may still begin to learn all the same."""
DOMINATES = 1e4
"""Times the policy loss: a value loss beyond it leaves shared layers nothing for the policy."""
SHORT, NEAR = 5.0, 20.0
"""Steps that a discount looks ahead, and times that: episodes that are longer are hardly looked ahead in."""
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


def values_dominate(run: Evidence) -> Finding | None:
    """In a trunk that both share, the value loss outweighs the policy's by far."""
    value, policy = run.late("loss/value"), run.late("loss/policy")
    shared = run.config.get("algorithm.network.share") is True
    if run.course.well or not shared or value is None or policy is None:
        return None
    weight = run.setting("vf_coef", 1.0)
    share = weight * value / max(abs(policy), 1e-3)
    if share < DOMINATES:
        return None
    what = (
        f"the value loss dominates the layers that it shares with the policy: vf_coef times {value:.3g} is "
        f"{share:,.0f} times the policy loss"
    )
    advice = (
        "a smaller vf_coef or reward_scale, or network.share=false: towers of their own"
    )
    numbers = {"loss/value": value, "loss/policy": policy, "vf_coef": weight}
    return Finding("value-loss-dominates", CAUSE + 5, what, advice, numbers)


def observations_large(run: Evidence) -> Finding | None:
    """The first gradients are so steep that observations may be large."""
    losses, norms = run.values("loss/value"), run.values("loss/grad_norm")
    normalized = run.config.get("algorithm.network.normalize_obs")
    if not run.course.unwell or run.course.learned or run.replay or run.groups:
        return None
    if not len(losses) or not len(norms) or normalized is not False:
        return None
    if not run.reached(QUARTER):
        return None
    steep = float(norms[0] / max(losses[0], 1e-12) ** 0.5)
    if steep < STEEP:
        return None
    what = (
        f"observations may be large, and they are not normalized: the first gradients have a norm of {norms[0]:.3g}, "
        f"{steep:.3g} times the root of the value loss (1 to 4 are usual)"
    )
    advice = "network.normalize_obs=true, or observations of the order of 1"
    numbers = {"loss/grad_norm": float(norms[0]), "loss/value": float(losses[0])}
    return Finding("observations-not-normalized", CAUSE - 5, what, advice, numbers)


def horizon_short(run: Evidence) -> Finding | None:
    """The discount forgets what comes later in an episode."""
    gamma, lengths = run.setting("gamma", 1.0), run.values("episode/length")
    if not run.course.unwell or gamma >= 1 or not len(lengths):
        return None
    horizon, length = 1 / (1 - gamma), float(lengths.max())
    near = 3.0 if horizon < SHORT else NEAR
    if length < near * horizon:
        return None
    what = (
        f"the discount looks {horizon:.3g} steps ahead (gamma={gamma:g}), and episodes have up to {length:,.0f}: what "
        "an action leads to later does not count"
    )
    advice = "gamma=0.99 or more"
    numbers = {"gamma": gamma, "horizon": horizon, "episode/length": length}
    return Finding("horizon-too-short", CAUSE + 6, what, advice, numbers)
