"""Rules of learning from a replay memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.report.doctor.finding import CAUSE, Finding

if TYPE_CHECKING:
    from shoal.report.doctor.evidence import Evidence

FEW_SAMPLES = 4.0
"""Samples drawn for each step that was stored: fewer leave most of the memory unused."""
FEW_MOVES = 2.0
"""Times that a target network took over weights (or as much of them in parts): fewer leave it as it was drawn."""
HALF = 0.5
"""Of a run's steps: before that one that goes on has not made the updates that it will."""
BEYOND = 10.0
"""Times the largest return that was seen: values beyond it are no returns."""


def ratio_too_low(run: Evidence) -> Finding | None:
    """Steps are learned from too seldom."""
    ratio = run.setting("replay.samples_per_insert", FEW_SAMPLES)
    if not run.replay or run.course.well or ratio >= FEW_SAMPLES:
        return None
    what = f"each step is learned from {ratio:g} times on average, which is little (8 to 128 are usual)"
    advice = f"replay.samples_per_insert={max(16, 16 * ratio):g}: more updates for the same steps"
    numbers = {
        "replay.samples_per_insert": ratio,
        "updates": run.number("updates") or 0.0,
    }
    return Finding("replay-ratio-too-low", CAUSE + 4, what, advice, numbers)


def target_never_moves(run: Evidence) -> Finding | None:
    """The target network stays as it was drawn, so that values of nothing are learned."""
    updates, tau = run.number("updates"), run.setting("tau", 1.0)
    interval = run.setting("target_update_interval", 1.0)
    if not run.replay or run.course.well or not updates or not run.has("tau"):
        return None
    moves = updates * tau / max(1.0, interval)
    if moves >= FEW_MOVES or not run.reached(HALF):
        return None
    what = (
        f"the target network hardly moves: {updates:,.0f} updates with target_update_interval={interval:g} and "
        f"tau={tau:g} replace {100 * min(1.0, moves):.0f} % of its weights"
    )
    advice = "target_update_interval=1 with tau=0.005, or an interval of some hundred updates with tau=1"
    numbers = {"updates": updates, "target_update_interval": interval, "tau": tau}
    return Finding("target-never-moves", CAUSE + 3, what, advice, numbers)


def values_beyond(run: Evidence) -> Finding | None:
    """Learned values are far beyond any return."""
    value, returns = run.late("loss/q"), run.values("episode/return")
    if value is None or not len(returns) or run.course.well:
        return None
    most = float(np.abs(returns).max()) + run.course.spread
    most *= run.setting("reward_scale", 1.0)
    if abs(value) < BEYOND * max(most, 1e-3) or run.config.get("normalize_reward"):
        return None
    what = f"learned values are {value:.3g}, far beyond any return ({most:.3g} at most): they feed on themselves"
    advice = "a smaller learning_rate, a slower target network (a smaller tau), gamma below 1"
    numbers = {"loss/q": value, "largest_return": most}
    return Finding("values-diverge", CAUSE + 5, what, advice, numbers)


def never_explores(run: Evidence) -> Finding | None:
    """No action is ever chosen at random."""
    first, last = run.setting("epsilon_start", 1.0), run.setting("epsilon_end", 1.0)
    noisy = bool(run.config.get("algorithm.network.noisy"))
    if run.course.well or max(first, last) > 0.01 or noisy:
        return None
    what = f"nothing is tried out: epsilon is {first:g} at first and {last:g} at last, and the network has no noise"
    advice = "epsilon_start=1 falling to epsilon_end=0.02 in a fifth of the run, or network.noisy"
    numbers = {"epsilon_start": first, "epsilon_end": last}
    return Finding("never-explores", CAUSE + 6, what, advice, numbers)


def steps_lost(run: Evidence) -> Finding | None:
    """Actors died, and the steps that they kept went with them."""
    lost = run.values("replay/steps_lost")
    if not len(lost) or lost[-1] <= 0:
        return None
    what = f"actors died, and {lost[-1]:,.0f} steps of their memories went with them"
    advice = "look into what ended them (memory, the machine); more of them hold a smaller part each"
    return Finding("actors-lost", CAUSE, what, advice, {"lost": float(lost[-1])})
