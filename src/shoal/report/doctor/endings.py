"""Rules of how a run ended, and of what it lost on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.report.doctor.finding import CAUSE, ENDED, SYMPTOM, Finding
from shoal.types.text import printable

if TYPE_CHECKING:
    from shoal.report.doctor.evidence import Evidence

NOT_FINITE = "not finite"


def not_finite(run: Evidence) -> Finding | None:
    """Training ended because no update was finite any more, or updates were skipped."""
    skipped = run.values("learner/skipped")
    count = float(skipped[-1]) if len(skipped) else 0.0
    reason = str(run.status.get("reason", ""))
    ended = run.status.get("state") == "failed" and NOT_FINITE in reason
    if not ended and not count:
        return None
    numbers = {"learner/skipped": count, "updates": run.number("updates") or 0.0}
    advice = (
        "a smaller learning_rate; rewards and observations of the order of 1 (reward_scale, normalize_reward, "
        "network.normalize_obs); look for single rewards or observations that are far larger than the others"
    )
    if run.groups:
        advice = "a smaller learning_rate; rewards of the order of 1, none far larger than the others"
    if ended:
        what = f"training ended because losses or gradients were no finite numbers any more: {printable(reason, 300)}"
        return Finding("not-finite", ENDED + 5, what, advice, numbers)
    what = f"{count:,.0f} gradient steps were skipped, as their loss or gradient was not finite"
    return Finding("not-finite", CAUSE + 12, what, advice, numbers)


def failed(run: Evidence) -> Finding | None:
    """An error ended it."""
    reason = str(run.status.get("reason", ""))
    if run.status.get("state") != "failed" or NOT_FINITE in reason:
        return None
    what = f"the run ended by an error after {run.number('steps') or 0:,.0f} steps: {printable(reason, 300)}"
    advice = "mend what the error names, then `shoal resume RUN`; for an environment, `shoal check-env ENV`"
    return Finding("failed", ENDED, what, advice, _progress(run))


def interrupted(run: Evidence) -> Finding | None:
    """Its process is gone, or it was stopped from outside."""
    state = run.status.get("state")
    if state == "interrupted":
        what = (
            f"the run was not ended: its process is gone after {run.number('steps') or 0:,.0f} steps "
            "(killed, out of memory, or the machine stopped)"
        )
    elif state == "stopped":
        reason = printable(run.status.get("reason", ""), 200)
        what = (
            f"the run was stopped after {run.number('steps') or 0:,.0f} steps: {reason}"
        )
    else:
        return None
    advice = "`shoal resume RUN` goes on from its newest checkpoint"
    if run.number("checkpoints") == 0:
        advice = "there is no checkpoint: `shoal resume RUN` begins it at step 0"
    return Finding("interrupted", ENDED, what, advice, _progress(run))


def unjudged(run: Evidence) -> Finding | None:
    """Nobody says how the run stands: not whether it ended, nor how far it came."""
    if run.status.get("state") != "unknown":
        return None
    advice = (
        "look for the run.json that belongs here, which a run writes as soon as it trains: it may not have been copied "
        "with the rest, or the run ended before its first update; then train it again, and read what it says"
    )
    numbers = {"lines": float(len(run.lines))}
    if run.lines:
        what = (
            "there is no run.json that says how the run stands: whether it ended, and how. What is said here is by the "
            f"{len(run.lines):,} lines of its metrics.jsonl alone"
        )
    else:
        what = "there is nothing to judge the run by: neither a run.json that says how it stands nor a line of metrics"
    return Finding("nothing-to-judge-by", ENDED + 2, what, advice, numbers)


def never_began(run: Evidence) -> Finding | None:
    """There is not one line of metrics, nor what is left of one."""
    ended = run.status.get("state") in ("failed", "interrupted")
    if run.lines or run.damage or run.goes_on or ended or unjudged(run) is not None:
        return None
    updates = run.number("updates") or 0
    if updates:
        what = f"metrics.jsonl has no line, though {updates:,.0f} updates were done, so that little can be said"
        advice = (
            "a run writes about 500 lines: one that ends long before its total_timesteps has none; "
            "`shoal resume RUN` goes on with it. If there were lines, look for the file that held them"
        )
        return Finding("no-metrics", ENDED - 1, what, advice, {"updates": updates})
    what = "the run left no metrics: it ended before its first update"
    advice = "train it again, and read what it says; total_timesteps must hold more than one rollout"
    return Finding("never-began", ENDED - 1, what, advice, {})


def guarded(run: Evidence) -> Finding | None:
    """The guard had to act."""
    count = run.guard.count
    if not count:
        return None
    what = f"the guard acted {count:,} times"
    if run.guard.interventions:
        last = run.guard.interventions[-1]
        what = f"the guard acted {count:,} times; the last: {printable(last.said, 300)}"
    advice = "mend the cause that it names, as it only keeps the run from being lost"
    return Finding("guard-acted", SYMPTOM + 8, what, advice, {"count": float(count)})


def damaged(run: Evidence) -> Finding | None:
    """Lines of its metrics cannot be read."""
    if not run.damage:
        return None
    what = f"metrics.jsonl is damaged: {run.damage}"
    advice = "look at the disk; what is said here stands on the lines that are whole"
    return Finding("damaged-metrics", CAUSE + 15, what, advice, {})


def _progress(run: Evidence) -> dict[str, float]:
    names = ("steps", "updates", "episodes", "seconds")
    return {name: run.number(name) or 0.0 for name in names}
