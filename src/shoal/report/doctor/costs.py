"""Rules of what episodes cost, where a limit on that was learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.report.doctor.finding import CAUSE, SYMPTOM, Finding

if TYPE_CHECKING:
    from shoal.report.doctor.evidence import Evidence

ABOVE = 1.1
"""Times the limit: costs swing around it, and the last ones may be a little above."""
GROWS = 1.05
"""Times what it was a quarter of the run ago: the multiplier is not where it settles."""


def above_limit(run: Evidence) -> Finding | None:
    """Episodes cost more than the limit that they were to be learned under."""
    limit = run.setting("cost_limit", -1.0)
    trained = run.late("info/cost")
    greedy = run.number("greedy_cost")
    measured = trained if greedy is None else greedy
    if limit < 0 or measured is None or measured <= ABOVE * limit:
        return None
    of = "of training" if greedy is None else "with greedy actions"
    what = (
        f"an episode {of} costs {measured:.4g} on average, above the limit of {limit:g}"
    )
    advice = "a cost_limit below the one that must hold, and more steps"
    weights = run.values("constraint/multiplier")
    numbers = {"cost": measured, "cost_limit": limit}
    if len(weights) >= 4:
        numbers["constraint/multiplier"] = float(weights[-1])
        before = float(weights[3 * len(weights) // 4 - 1])
        if weights[-1] > GROWS * before:
            advice = "more steps, or a larger multiplier_learning_rate: the multiplier still grows"
    if trained is not None and greedy is not None and trained <= limit:
        advice = (
            "evaluate with sampled actions, as training does, or give a lower cost_limit: the policy kept the limit "
            "while it explored"
        )
    return Finding("cost-above-limit", CAUSE + 8, what, advice, numbers)


def paid_for(run: Evidence) -> Finding | None:
    """Episodes came to cost no more than their limit, and the return did not rise, or fell, for it."""
    limit, course = run.setting("cost_limit", -1.0), run.course
    before, after = run.early("info/cost"), run.late("info/cost")
    if limit < 0 or before is None or after is None or not course.unwell:
        return None
    kept = before > ABOVE * limit >= after
    if not kept or (course.learned and not course.fell):
        return None
    what = (
        f"the limit of {limit:g} is kept: an episode cost {before:.4g} at first and {after:.4g} at the end. The mean "
        f"return was {course.first:.4g} and is {course.last:.4g}: that was paid for it"
    )
    advice = (
        "a larger cost_limit, if it may be; where costs lie far below the limit, a smaller multiplier_learning_rate "
        "and multiplier_gain; more steps, as the return may rise again under the limit"
    )
    numbers = {"cost": after, "cost_limit": limit}
    numbers |= {"first": course.first, "last": course.last}
    return Finding("return-paid-for-limit", SYMPTOM, what, advice, numbers)
