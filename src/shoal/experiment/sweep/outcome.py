"""The outcome of a sweep: its table, the summary that programs read, and the best settings as a file to train with."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tomli_w

from shoal.experiment.sweep.results import (
    Row,
    as_json,
    front_of,
    objective_text,
    ranked,
)
from shoal.experiment.sweep.space import changed
from shoal.experiment.sweep.words import settings_text
from shoal.experiment.trust import imported_by
from shoal.run.drafts import write_atomic
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from shoal.experiment.sweep.confirm import Verdict
    from shoal.experiment.sweep.plan import Plan

BEST, SUMMARY = "best.toml", "summary.json"
SHOWN = 10
"""Trials in the table."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep has found."""

    path: Path
    """Its directory."""
    trials: tuple[Row, ...]
    """All trials, in their order."""
    best: Mapping[str, object]
    """The winner's settings by dotted names; empty where no trial came to its end."""
    best_trial: int | None
    """Its number."""
    confirmed: bool | None
    """Whether it was better than the settings that the sweep began from, on fresh seeds; None where that was not asked,
    or has not come yet."""
    verdict: str
    """The same in words."""
    ratio: float | None
    """The winner's median of what counts over the base's, on the fresh seeds."""
    importance: Mapping[str, float]
    """Which settings decided what is among the best, as shares of 1."""
    seconds: float
    """Of searching, by the clock."""
    cost_s: float
    """Seconds of training of all trials, those that failed or were stopped included."""

    @property
    def best_config(self) -> Path:
        """The file with the best settings, which `shoal train --config` takes."""
        return self.path / BEST

    def __repr__(self) -> str:
        """One line: where it is and what came of it."""
        return f"SweepResult({str(self.path)!r}, trials={len(self.trials)}, best={dict(self.best)!r}, {self.verdict!r})"


def summary_of(
    plan: Plan, result: SweepResult, verdict: Verdict | None
) -> dict[str, Any]:
    """What `summary.json` holds."""
    told: dict[str, Any] = {
        "env": plan.base.options.env,
        "algo": plan.base.options.algo,
        "objective": list(plan.settings.objectives),
        "threshold": plan.threshold,
        "best_trial": result.best_trial,
        "best": dict(result.best),
        "confirmed": result.confirmed,
        "verdict": result.verdict,
        "seconds": result.seconds,
        "cost_s": result.cost_s,
        "importance": dict(result.importance),
        "front": [row.number for row in front_of(result.trials)],
        "trials": [as_json(row) for row in result.trials],
    }
    if verdict is not None:
        told |= {
            "winner_seeds": [_finite(x) for x in verdict.winner],
            "base_seeds": [_finite(x) for x in verdict.base],
            "p": verdict.p,
            "ratio": _finite(verdict.ratio),
        }
    return told


def write_outcome(plan: Plan, result: SweepResult, verdict: Verdict | None) -> None:
    """Writes `summary.json`, and `best.toml` where there is a winner."""
    told = json.dumps(summary_of(plan, result, verdict), indent=1)
    write_atomic(result.path / SUMMARY, (told + "\n").encode())
    if result.best_trial is None:
        return
    head = [
        f"# Best settings of a sweep over {len(result.trials)} trials: trial {result.best_trial}",
        f"# {printable(result.verdict)}",
        f"# {printable(settings_text(result.best))}",
    ]
    best = changed(plan.base, result.best)
    text = "\n".join(head) + "\n" + tomli_w.dumps(best.to_file())
    write_atomic(result.best_config, text.encode())


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def table_of(plan: Plan, result: SweepResult) -> list[str]:
    """What a sweep has found, in lines."""
    rows = result.trials
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    lines = [
        f"{len(rows)} trials ({said or 'none'}): {result.seconds:.0f} s of searching, {result.cost_s:.0f} s of training"
    ]
    best = ranked(plan, rows)[:SHOWN]
    front = {row.number for row in front_of(rows)}
    if best:
        lines.append(f"{'trial':>5}  {'objective':>14}  {'return':>9}  {'seconds':>8}")
    lines += [_row_text(plan, row, on_front=row.number in front) for row in best]
    failed = [row for row in rows if row.state == "failed"]
    if failed:
        lines.append(f"{len(failed)} failed, the first of them: {failed[0].why}")
    if result.importance:
        shares = [f"{name} {share:.2f}" for name, share in result.importance.items()]
        lines.append(f"importance: {', '.join(shares)}")
    if front:
        lines.append("* no other trial has a better return in fewer seconds")
    if result.best_trial is not None:
        lines.append(f"winner: trial {result.best_trial}{_chosen_by(plan, rows)}")
    lines.append(result.verdict)
    if result.best_trial is not None:
        trust = " --trust" if imported_by(plan.base.to_file()) else ""
        lines.append(f"best settings: shoal train --config {result.best_config}{trust}")
    return [printable(line) for line in lines]


def _row_text(plan: Plan, row: Row, *, on_front: bool) -> str:
    value = objective_text(plan, row.values[0])
    said = f"{row.number:>5}  {value:>14}  {row.returned:>9.4g}  {row.seconds:>8.2f}"
    mark = " *" if on_front else "  "
    return f"{said}{mark} {settings_text(row.settings)}"


def _chosen_by(plan: Plan, rows: Sequence[Row]) -> str:
    """What made a trial the winner where it need not be the first of the table."""
    finalists = len(ranked(plan, rows)[: plan.settings.finalists])
    if finalists < 2 or not plan.settings.final_seeds:
        return ""
    return f", the best of {finalists} finalists on other seeds"


def total_cost(rows: Sequence[Row]) -> float:
    """Seconds of training of all trials."""
    return sum(row.seconds for row in rows)
