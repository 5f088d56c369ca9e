"""Rules of updates: steps that are too large, too small, or that the entropy leads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.report.doctor.finding import CAUSE, Finding

if TYPE_CHECKING:
    from shoal.report.doctor.evidence import Evidence

HIGH_KL, HIGH_CLIP = 0.1, 0.5
"""Nats between two policies, and a share of clipped steps: beyond them an update is no small step."""
LOW_KL = 3e-6
"""Nats below which a policy does not move."""
GONE = 0.15
"""Of the first entropy: what is left where a policy has decided."""
USUAL_RATE = 0.02
"""A learning rate from which on nothing but small problems is learned."""
FEW_UPDATES, STALE = 25, 5.0
"""Updates of a run, and versions between collecting and learning."""
LARGE_BONUS = 0.3
"""An entropy coefficient from which on the entropy outweighs advantages of the order of 1."""


def rate_too_high(run: Evidence) -> Finding | None:
    """Updates change the policy too much."""
    kl, clipped = run.values("loss/approx_kl"), run.values("loss/clip_fraction")
    if run.course.well or not len(kl):
        return None
    first = kl[: max(3, len(kl) // 4)]
    most, share = float(first.max()), float(clipped.max()) if len(clipped) else 0.0
    if most < HIGH_KL and float(kl.mean()) < HIGH_KL / 2:
        return None
    rate = run.setting("learning_rate")
    what = (
        f"updates change the policy too much: a KL divergence of {most:.3g} nats in one update (0.003 to 0.03 are "
        f"usual), {100 * share:.0f} % of the steps clipped, at learning_rate {rate:g}"
    )
    advice = f"a learning_rate of {rate / 10:g} or less, fewer update_epochs, or target_kl=0.02"
    numbers = {
        "loss/approx_kl": most,
        "loss/clip_fraction": share,
        "learning_rate": rate,
    }
    return Finding("learning-rate-too-high", CAUSE + 10, what, advice, numbers)


def rate_too_low(run: Evidence) -> Finding | None:
    """Updates change nothing."""
    kl = run.late("loss/approx_kl")
    if run.course.well or kl is None or abs(kl) >= LOW_KL:
        return None
    if entropy_gone(run) is not None or rate_too_high(run) is not None:
        return None
    rate = run.setting("learning_rate")
    what = f"updates hardly change the policy: {kl:.2g} nats each (0.003 to 0.03 are usual), at learning_rate {rate:g}"
    advice = f"a learning_rate of {10 * rate:g} or more, or more update_epochs"
    numbers = {"loss/approx_kl": kl, "learning_rate": rate}
    return Finding("learning-rate-too-low", CAUSE + 5, what, advice, numbers)


def entropy_gone(run: Evidence) -> Finding | None:
    """The policy decided before it had learned."""
    entropy = run.values("loss/entropy")
    if run.course.well or len(entropy) < 2 or run.replay or entropy.min() < 0:
        return None
    first, last = float(entropy[0]), run.late("loss/entropy") or 0.0
    first = max(first, float(entropy[: max(2, len(entropy) // 8)].max()))
    if last > GONE * first:
        return None
    steps = [line["step"] for line in run.lines if line.get("loss/entropy") is not None]
    when = next(
        step
        for step, value in zip(steps, entropy, strict=True)
        if value <= GONE * first
    )
    what = (
        f"the policy's entropy fell from {first:.3g} to {last:.2g} nats (below {100 * GONE:.0f} % at step {when:,}) "
        f"while the mean return is {run.course.last:.4g}: it has stopped exploring"
    )
    advice = "a smaller learning_rate, and a larger ent_coef, such as 0.01"
    if run.groups:
        advice = "a smaller learning_rate, a larger epsilon_high, or beta above 0"
    numbers = {"first": first, "loss/entropy": last, "step": float(when)}
    return Finding("entropy-gone", CAUSE + 8, what, advice, numbers)


def entropy_bonus(run: Evidence) -> Finding | None:
    """The entropy bonus outweighs the rewards."""
    entropy, bonus = run.values("loss/entropy"), run.setting("ent_coef")
    if run.course.well or run.replay or len(entropy) < 2 or bonus < LARGE_BONUS:
        return None
    if entropy[-1] < 0.9 * entropy[0]:
        return None
    what = (
        f"the entropy bonus keeps the policy random: ent_coef is {bonus:g}, and the entropy is still {entropy[-1]:.3g} "
        f"of {entropy[0]:.3g} nats"
    )
    advice = "an ent_coef of 0.01 or less"
    numbers = {"ent_coef": bonus, "loss/entropy": float(entropy[-1])}
    return Finding("entropy-bonus-too-large", CAUSE + 9, what, advice, numbers)


def rate_unusual(run: Evidence) -> Finding | None:
    """The learning rate is far beyond the usual, and nothing was learned."""
    rate = run.setting("learning_rate")
    if not run.course.unwell or run.course.learned or rate < USUAL_RATE:
        return None
    if rate_too_high(run) is not None:
        return None
    loss = run.late("loss/value") or 0.0
    what = f"nothing is learned at a learning_rate of {rate:g}, which is far beyond the usual (0.0001 to 0.003)"
    advice = f"a learning_rate of {min(0.001, rate / 100):g}"
    numbers = {"learning_rate": rate, "loss/value": loss}
    return Finding("learning-rate-too-high", CAUSE + 7, what, advice, numbers)


def too_few(run: Evidence) -> Finding | None:
    """There were only a few updates."""
    updates = run.number("updates")
    course = run.course
    if not course.unwell or course.rising or run.replay or not updates:
        return None
    if updates >= FEW_UPDATES:
        return None
    steps = (run.number("steps") or 0.0) / updates
    what = f"there were only {updates:.0f} updates, one in {steps:,.0f} steps"
    advice = "fewer num_envs or a smaller num_steps, so that there are some hundred; or more total_timesteps"
    if run.groups:
        advice = "more total_timesteps, which counts answers; or fewer num_prompts, so that there are some hundred"
    numbers = {"updates": updates, "steps_of_each": steps}
    return Finding("too-few-updates", CAUSE + 1, what, advice, numbers)


def staleness(run: Evidence) -> Finding | None:
    """What is learned from was collected by far older weights."""
    late = run.late("actors/staleness")
    if late is None:
        late = run.late("groups/staleness")
    if late is None or late < STALE or run.course.well or run.replay:
        return None
    bound = run.setting("max_staleness")
    what = f"updates learn from what weights of {late:.3g} versions ago collected (max_staleness={bound:g})"
    advice = (
        "max_staleness=1, or a correction for older weights (V-trace, decoupled_clip)"
    )
    if run.groups:
        advice = "max_staleness=1, or correction.version_decay below 1, so that older tokens count less"
    numbers = {"staleness": late, "max_staleness": bound}
    return Finding("staleness", CAUSE + 6, what, advice, numbers)
