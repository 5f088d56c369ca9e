"""Confirmation: the best of many trials is partly luck, so it is run again on seeds that nothing was chosen by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import mean, median
from typing import TYPE_CHECKING

import numpy as np

from shoal.experiment.sweep.jobs import job_of, run_jobs
from shoal.experiment.sweep.results import is_base, ranked
from shoal.experiment.sweep.settings import RETURN, SECONDS
from shoal.experiment.sweep.study import value_of_run
from shoal.experiment.sweep.words import outcome_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from shoal.experiment.sweep.plan import Plan
    from shoal.experiment.sweep.processes import Workers
    from shoal.experiment.sweep.results import Row
    from shoal.experiment.sweep.teller import Teller
    from shoal.experiment.sweep.trial import Ended, Job, Ran

FINAL_SEEDS, CONFIRM_SEEDS = 1000, 2000
"""What is added to the first seed for those of the finalists and of the confirmation."""
LEVEL = 0.05
"""How often a winner that is no better may look like one."""
DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the winner is better than what the sweep began from."""

    confirmed: bool | None
    """None where it was not asked."""
    said: str
    winner: tuple[float, ...] = ()
    """What counts, on each fresh seed: a return, or seconds; infinite where the threshold was not met."""
    base: tuple[float, ...] = ()
    """The same of the settings that the sweep began from."""
    p: float | None = None
    """How often chance alone would order the seeds so."""

    @property
    def ratio(self) -> float | None:
        """The winner's median over the base's; None where nothing was compared."""
        if not self.winner or not self.base:
            return None
        below = median(self.base)
        return median(self.winner) / below if below else None


class Confirmation:
    """Runs the best trials again and compares the winner with the base."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        workers: Workers,
        *,
        parallel: int,
        teller: Teller,
    ) -> None:
        """As of a search."""
        self._plan, self._folder, self._workers = plan, folder, workers
        self._parallel, self._tell = parallel, teller.say

    def winner(self, rows: Sequence[Row]) -> Row | None:
        """The best trial, of the finalists by their other seeds; None where no trial came to its end."""
        settings = self._plan.settings
        finalists = ranked(self._plan, rows)[: settings.finalists]
        if len(finalists) < 2 or not settings.final_seeds:
            return finalists[0] if finalists else None
        self._tell(
            f"finalists: trials {', '.join(str(row.number) for row in finalists)}, on {settings.final_seeds} other "
            "seeds each"
        )
        named = {f"final-{row.number:04d}": row.settings for row in finalists}
        ran = self._run(named, FINAL_SEEDS, settings.final_seeds)
        values = [self._mean(ended) for ended in ran.values()]
        if len(settings.objectives) > 1:
            return self._cheapest(finalists, list(ran.values()))
        best = min(range(len(values)), key=values.__getitem__)
        return finalists[best]

    def _cheapest(self, finalists: Sequence[Row], ran: Sequence[list[Ended]]) -> Row:
        """Of finalists on a front, the first in their order that keeps its return; else the one with the largest."""
        returns = [
            mean([one.value for one in _runs(ended)] or [-math.inf]) for ended in ran
        ]
        for row, returned in zip(finalists, returns, strict=True):
            if row.returned is not None and returned >= row.returned:
                return row
        return finalists[max(range(len(returns)), key=returns.__getitem__)]

    def verdict(self, winner: Row) -> Verdict:
        """Compares the winner with the base, on seeds that neither was seen on."""
        plan, count = self._plan, self._plan.settings.confirm_seeds
        if not count:
            return Verdict(confirmed=None, said="not confirmed: confirm_seeds is 0")
        if is_base(plan, winner):
            return Verdict(
                confirmed=False,
                said="no trial was better than the settings that the sweep began from",
            )
        self._tell(
            f"confirming trial {winner.number} against the settings that the sweep began from, on {count} fresh seeds"
        )
        own = f"winner-{winner.number:04d}"
        ran = self._run({own: winner.settings, "base": {}}, CONFIRM_SEEDS, count)
        return judged(plan, ran[own], ran["base"])

    def _run(
        self, named: Mapping[str, Mapping[str, object]], first: int, count: int
    ) -> dict[str, list[Ended]]:
        """Runs each of these settings on `count` seeds, in turns, so that what else the machine does meets all."""
        begin = self._plan.base.options.seed + first
        seeds = range(begin, begin + count)
        jobs = {
            (name, seed): job_of(
                self._plan, self._folder, f"{name}-{seed}", values, seeds=[seed]
            )
            for seed in seeds
            for name, values in named.items()
        }
        ended = run_jobs(
            list(jobs.values()),
            self._workers,
            parallel=self._parallel,
            tell=self._said,
        )
        return {
            name: [ended[jobs[name, seed].name] for seed in seeds] for name in named
        }

    def _said(self, job: Job, ended: Ended) -> None:
        self._tell(f"{job.name}: {outcome_text(self._plan, ended)}")

    def _mean(self, ended: Sequence[Ended]) -> float:
        """Of what counts, where less is better; infinite where a run failed."""
        plan, (name, *_) = self._plan, self._plan.settings.objectives
        if any(not one.runs for one in ended):
            return math.inf
        sign = -1.0 if name == RETURN else 1.0
        return mean(sign * value_of_run(plan, name, one) for one in _runs(ended))


def _runs(ended: Sequence[Ended]) -> list[Ran]:
    return [run for one in ended for run in one.runs]


def judged(plan: Plan, winner: Sequence[Ended], base: Sequence[Ended]) -> Verdict:
    """Whether the winner's seeds are better than the base's, by their ranks."""
    aim = plan.settings.aim
    ours = [_counted(plan, aim, one) for one in winner]
    theirs = [_counted(plan, aim, one) for one in base]
    sign = -1.0 if aim == RETURN else 1.0
    p = by_chance([sign * x for x in ours], [sign * x for x in theirs])
    better = sign * median(ours) < sign * median(theirs) and p <= LEVEL
    one, other = _number(median(ours)), _number(median(theirs))
    if aim != RETURN and math.isfinite(median(theirs)) and median(theirs):
        other = f"{other} ({median(ours) / median(theirs):.2f} x)"
    chance = f"{p:.3f}"
    if aim == SECONDS:
        kept = [_counted(plan, RETURN, one) for one in winner]
        before = [_counted(plan, RETURN, one) for one in base]
        better = better and median(kept) >= median(before)
        chance = f"{chance}; return {_number(median(kept))} against {_number(median(before))}"
    head = "confirmed" if better else "not confirmed, so not called better"
    said = f"{head}: {aim}: median {one} against {other} on {len(ours)} fresh seeds, p = {chance}"
    return Verdict(better, said, tuple(ours), tuple(theirs), p)


def _counted(plan: Plan, aim: str, ended: Ended) -> float:
    """What counts of one run; the worst there is where it failed or did not meet the threshold."""
    worst = -math.inf if aim == RETURN else math.inf
    if not ended.runs:
        return worst
    run = ended.runs[0]
    if plan.settings.to_threshold and not run.solved:
        return worst
    return run.value if aim == RETURN else run.seconds


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "never"


def by_chance(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How often shuffled ranks are as good as ours, where less is better: a permutation test of Wilcoxon's rank sum.

    Ties, infinite ones too, share their mean rank. The least that n seeds on each side can give is 1 in (2n choose n).
    """
    both = np.array([*ours, *theirs])
    ranks = np.array([np.mean(np.flatnonzero(np.sort(both) == x)) for x in both])
    count, seen = len(ours), float(ranks[: len(ours)].sum())
    if math.comb(len(both), count) <= DRAWS:
        from itertools import combinations

        sums = [sum(some) for some in combinations(ranks.tolist(), count)]
        return float(np.mean([x <= seen + 1e-9 for x in sums]))
    rng = np.random.Generator(np.random.PCG64(0))
    sums = [rng.permutation(ranks)[:count].sum() for _ in range(DRAWS)]
    return float((1 + np.sum(np.array(sums) <= seen + 1e-9)) / (1 + DRAWS))
