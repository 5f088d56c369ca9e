"""Results: the trials of a study as rows, those that none beats, and which settings mattered."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal.experiment.sweep.kinds import value_of
from shoal.experiment.sweep.settings import RETURN, THRESHOLD
from shoal.experiment.sweep.study import JOURNAL, UNSOLVED_S, changes_in, runs_in
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from shoal.experiment.sweep.plan import Plan

STATES = {
    "COMPLETE": "complete",
    "PRUNED": "stopped early",
    "FAIL": "failed",
    "RUNNING": "under way",
    "WAITING": "waiting",
}
FEWEST = 10
"""Trials that came to their end, below which nothing is said of what mattered."""


@dataclass(frozen=True, slots=True)
class Row:
    """A trial, and what came of it."""

    number: int
    state: str
    settings: Mapping[str, object]
    """By dotted names."""
    returned: float | None
    """Mean return of its runs; None where none came to its end."""
    seconds: float
    """Of training, of all its runs: its cost."""
    solved: int
    """Of its runs, those that met the threshold."""
    values: tuple[float, ...]
    """Of the objectives."""
    why: str
    """Why it failed or was stopped."""


def rows_of(plan: Plan, study: Study) -> list[Row]:
    """The trials in their order; ConfigError where the study holds what no sweep writes."""
    try:
        return [_row_of(plan, trial) for trial in study.get_trials(deepcopy=False)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the study is damaged ({type(error).__name__}: {error}); restore {JOURNAL} from a copy, or begin the "
            "sweep in another directory"
        ) from error


def _row_of(plan: Plan, trial: FrozenTrial) -> Row:
    runs = runs_in(trial)
    returns = [float(run["value"]) for run in runs]
    complete = trial.state.name == "COMPLETE" and bool(returns)
    return Row(
        trial.number,
        STATES[trial.state.name],
        changes_in(plan, trial),
        sum(returns) / len(returns) if complete else None,
        float(trial.user_attrs.get("seconds", 0.0)),
        sum(bool(run["solved"]) for run in runs),
        tuple(trial.values) if complete else (),
        str(trial.user_attrs.get("why", "")),
    )


def complete(rows: Sequence[Row]) -> list[Row]:
    """Those that came to their end."""
    return [row for row in rows if row.values]


def front_of(rows: Sequence[Row]) -> list[Row]:
    """The trials that no other one beats in return and in seconds at once, the cheapest first."""
    found: list[Row] = []
    best = float("-inf")
    for row in sorted(complete(rows), key=lambda row: (row.seconds, -_return(row))):
        if _return(row) > best:
            best = _return(row)
            found.append(row)
    return found


def _return(row: Row) -> float:
    assert row.returned is not None
    return row.returned


def ranked(plan: Plan, rows: Sequence[Row]) -> list[Row]:
    """The trials that came to their end, the best first.

    With two objectives: the Pareto front alone, those first that reach the return of the settings which the sweep began
    from, the cheapest of them first; then the others by their return.
    """
    done = complete(rows)
    names = plan.settings.objectives
    if len(names) == 1:
        sign = -1 if names[0] == RETURN else 1
        return sorted(done, key=lambda row: sign * row.values[0])
    first = [_return(row) for row in done if is_base(plan, row)]
    enough = first[0] if first else float("-inf")
    front = front_of(done)
    reach = [row for row in front if _return(row) >= enough]
    others = [row for row in front if _return(row) < enough]
    return reach + sorted(others, key=_return, reverse=True)


def is_base(plan: Plan, row: Row) -> bool:
    """Whether a trial has the settings that the sweep began from."""
    return all(
        value_of(plan.base, name) == value for name, value in row.settings.items()
    )


def importance_of(plan: Plan, study: Study, rows: Sequence[Row]) -> dict[str, float]:
    """How much each setting decided which trials are among the best, the largest first; shares of 1.

    PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255), which needs nothing but Optuna. Empty for fewer than `FEWEST`
    trials.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    if len(complete(rows)) < FEWEST or len(plan.space) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few trials, which `FEWEST` bounds
        found = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25)
        )
    names = {one.key: one.name for one in plan.space}
    return {names[key]: float(share) for key, share in found.items()}


def objective_text(plan: Plan, value: float) -> str:
    """A value of the first objective, in words."""
    name = plan.settings.objectives[0]
    if name == RETURN:
        return f"return {value:.4g}"
    if name == THRESHOLD and value >= UNSOLVED_S:
        return "not solved"
    return f"{value:.2f} s"


def as_json(row: Row) -> dict[str, Any]:
    """A trial as the summary holds it."""
    return {
        "trial": row.number,
        "state": row.state,
        "settings": dict(row.settings),
        "return": row.returned,
        "seconds": row.seconds,
        "solved": row.solved,
        "why": row.why,
    }
