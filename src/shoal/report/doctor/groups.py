"""Rules of groups of answers: whether some earn more than others, whether they are cut, whether they are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.report.doctor.finding import CAUSE, NOTHING, Finding

if TYPE_CHECKING:
    from shoal.report.doctor.evidence import Evidence

CUT, SILENT = 0.5, 0.5
"""Shares: of answers that are cut, and of updates without a gradient."""
LATE = 0.75
"""Of a run's answers: before that a model may still learn to end them."""
LOST = 0.01
"""Of the answers: those that could not be judged."""


def without_signal(run: Evidence) -> Finding | None:
    """All answers to a prompt earn the same, so that none is better than another."""
    norms, spreads = run.values("loss/grad_norm"), run.values("episode/return_std")
    if not run.groups or not len(norms) or not len(spreads):
        return None
    still = float((norms <= 1e-8).mean())
    replaced = run.values("groups/replaced")
    wanted = run.setting("num_prompts", 1) * max(1.0, run.number("updates") or 1.0)
    share = float(replaced[-1]) / (float(replaced[-1]) + wanted) if len(replaced) else 0
    if still < SILENT and share < 0.7:
        return None
    returns = run.values("episode/return")
    mean = float(returns[-1]) if len(returns) else 0.0
    numbers = {"without_gradient": still, "replaced": share, "episode/return": mean}
    what = (
        f"groups have no signal: in {100 * max(still, share):.0f} % of them all answers to a prompt earn the same "
        f"(mean {mean:.3g}), so that none is better than another"
    )
    advice = (
        "easier prompts or a score with steps between nothing and all where the mean is low, harder ones where it is "
        "high; more num_generations; a higher sampling.temperature"
    )
    return Finding("groups-without-signal", NOTHING + 3, what, advice, numbers)


def answers_cut(run: Evidence) -> Finding | None:
    """Most answers do not end by themselves."""
    share = run.late("groups/truncated")
    if not run.groups or share is None or share < CUT or not run.reached(LATE):
        return None
    most = run.setting("max_completion_length")
    what = f"{100 * share:.0f} % of the answers are cut at max_completion_length={most:.0f} tokens, before they end"
    advice = f"a max_completion_length of {2 * most:.0f}, or a score that asks for shorter answers"
    numbers = {"groups/truncated": share, "max_completion_length": most}
    return Finding("answers-cut", NOTHING, what, advice, numbers)


def answers_lost(run: Evidence) -> Finding | None:
    """Answers could not be judged."""
    lost, count = run.values("groups/lost"), run.course.episodes
    if not len(lost) or lost[-1] < max(1.0, LOST * count):
        return None
    what = f"{lost[-1]:,.0f} answers of {count:,} could not be judged, as scorers failed or were too slow"
    advice = "mend the scorer, or a larger language.scorer_timeout_s"
    numbers = {"groups/lost": float(lost[-1]), "episodes": float(count)}
    return Finding("answers-lost", CAUSE + 4, what, advice, numbers)
