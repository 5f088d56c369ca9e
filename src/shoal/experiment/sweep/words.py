"""Words: what is printed of trials while a sweep goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.experiment.sweep.results import objective_text
from shoal.experiment.sweep.trial import COMPLETE, FAILED
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.experiment.sweep.plan import Plan
    from shoal.experiment.sweep.results import Row
    from shoal.experiment.sweep.search import Underway
    from shoal.experiment.sweep.trial import Ended


def settings_text(values: Mapping[str, object]) -> str:
    """Settings in one line."""
    return " ".join(f"{name}={value}" for name, value in values.items())


def line_of(
    plan: Plan, done: int, underway: Underway, ended: Ended, best: Row | None
) -> str:
    """A line for a trial that has ended, with the best one so far."""
    budget = plan.settings.trials
    place = f"{done}/{budget}" if budget is not None else f"{done}"
    said = f"[{place}] trial {underway.trial.number}: {outcome_text(plan, ended)}"
    if best is not None:
        so_far = objective_text(plan, best.values[0])
        said += f" (best: {so_far}, trial {best.number})"
    return printable(f"{said}  {settings_text(underway.values)}")


def outcome_text(plan: Plan, ended: Ended) -> str:
    """What came of a trial, in words."""
    if ended.state == FAILED:
        return f"failed after {ended.seconds:.1f} s: {ended.why}"
    if ended.state != COMPLETE:
        return f"stopped after {ended.seconds:.1f} s, {ended.why}"
    values = [f"{run.value:.4g}" for run in ended.runs]
    said = f"return {', '.join(values)} in {ended.seconds:.1f} s"
    if plan.threshold is not None:
        solved = sum(run.solved for run in ended.runs)
        if plan.settings.to_threshold:
            said += ", solved" if solved == len(ended.runs) else ", not solved"
    return said
