"""The search: trials side by side, each begun when another one has ended, until the budget is spent."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shoal.experiment.sweep.jobs import chosen_for, claim, job_of
from shoal.experiment.sweep.results import ranked, rows_of
from shoal.experiment.sweep.space import changed
from shoal.experiment.sweep.study import (
    drawn,
    keep_end,
    rung_steps,
    runs_in,
    values_of,
    with_drawn,
)
from shoal.experiment.sweep.trial import (
    COMPLETE,
    FAILED,
    PRUNED,
    Ended,
    Job,
    Reports,
    read_end,
)
from shoal.experiment.sweep.words import line_of
from shoal.run.drafts import write_atomic
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from optuna.study import Study
    from optuna.trial import Trial

    from shoal.experiment.sweep.plan import Plan
    from shoal.experiment.sweep.processes import Workers
    from shoal.experiment.sweep.teller import Teller

LOOK_S = 0.05
BELOW = "below the median of the others at equal steps"
SLOW = "slower than {patience:g} times the best trial"
SPENT = "seconds"
"""The study's attribute that holds how long was searched."""


@dataclass(slots=True)
class Underway:
    """A trial that runs."""

    trial: Trial
    values: Mapping[str, object]
    job: Job
    reports: Reports
    rung: dict[int, int] = field(default_factory=dict[int, int])
    """Of each of its runs, at how many steps it was compared last, in rungs."""
    last: float = 0.0
    """The return that it reported last."""
    steps: int = 0
    """Of the run that is under way, when it did."""
    stopped: bool = False


class Search:
    """Draws trials, runs them, compares them while they run and writes down what came of each."""

    def __init__(
        self,
        plan: Plan,
        study: Study,
        folder: Path,
        workers: Workers,
        *,
        parallel: int,
        teller: Teller,
    ) -> None:
        """`teller` gets a line for each trial; the other arguments are what the sweep has opened."""
        self.plan, self.study, self.folder = plan, study, folder
        self._workers, self._parallel, self._teller = workers, parallel, teller
        self._running: dict[str, Underway] = {}
        self._before_s = float(study.user_attrs.get(SPENT, 0.0))
        self._begun_s = time.monotonic()
        self._failures: list[str] = []
        self._best_s = self._best_seconds()
        self._rung = rung_steps(plan)

    @property
    def spent_s(self) -> float:
        """Seconds of searching, those before it was continued included."""
        return self._before_s + time.monotonic() - self._begun_s

    def run(self) -> None:
        """Searches until the budget is spent and all trials have ended.

        Raises:
            EnvError: too many trials in a row have failed, with the first of their errors.
            KeyboardInterrupt: Ctrl-C; what ran is gone on with later.
        """
        self._take_up()
        while True:
            while len(self._running) < self._parallel and self._may_begin():
                self._begin(self.study.ask())
            if not self._running:
                break
            self._compare()
            self._settle()
            self._teller.show(self._now())
            time.sleep(LOOK_S)
        self.study.set_user_attr(SPENT, self.spent_s)

    def _may_begin(self) -> bool:
        settings = self.plan.settings
        begun = sum(trial.state.name != "WAITING" for trial in self._trials())
        if settings.trials is not None and begun >= settings.trials:
            return False
        return settings.seconds is None or self.spent_s < settings.seconds

    def _trials(self) -> Sequence[Any]:
        return self.study.get_trials(deepcopy=False)

    def _take_up(self) -> None:
        """Begins again what ran when the sweep was ended: from checkpoints, or what had ended unheard is taken."""
        from optuna.trial import Trial

        for frozen in self._trials():
            if frozen.state.name == "RUNNING":
                self._begin(Trial(self.study, frozen._trial_id))

    def _begin(self, trial: Trial) -> None:
        name = f"{trial.number:04d}"
        if any(one.key not in trial.params for one in self.plan.space):
            trial = with_drawn(trial, chosen_for(self.plan, self.folder, name))
        values = drawn(self.plan, trial)
        job = job_of(self.plan, self.folder, name, values)
        claim(job)
        underway = Underway(trial, values, job, Reports(job))
        for step in self._trials()[trial.number].intermediate_values:
            run, rest = divmod(step - 1, self.plan.base.options.total_timesteps)
            rung = (rest + 1) // self._rung
            underway.rung[run] = max(rung, underway.rung.get(run, 0))
        try:
            changed(self.plan.base, values)
        except ConfigError as error:
            self._end(underway, Ended(FAILED, f"ConfigError: {error}", 0.0, ()))
            return
        self._running[job.name] = underway
        if (ended := read_end(job)) is not None:
            self._end(underway, ended)
            return
        self._workers.begin(job)

    def _compare(self) -> None:
        """Takes in what trials have reported, and stops those that are worse than the others."""
        for underway in self._running.values():
            for line in underway.reports.new():
                self._report(underway, line)

    def _report(self, underway: Underway, line: Mapping[str, float]) -> None:
        settings, number = self.plan.settings, int(line["run"])
        underway.last, underway.steps = line["return"], int(line["step"])
        total = self.plan.base.options.total_timesteps
        reached = int(min(line["step"], total) // self._rung)
        if reached > underway.rung.get(number, 0):
            underway.rung[number] = reached
            if settings.prune and len(settings.objectives) == 1:
                step = number * total + reached * self._rung
                underway.trial.report(self._signed(line["return"]), step)
                if underway.trial.should_prune():
                    self._stop(underway, BELOW)
        late = settings.patience * self._best_s
        if settings.to_threshold and 0 < late < line["seconds"]:
            self._stop(underway, SLOW.format(patience=settings.patience))

    def _signed(self, value: float) -> float:
        """A return as a value of the study, which is minimized where seconds are the objective."""
        return -value if self.plan.settings.to_threshold else value

    def _stop(self, underway: Underway, why: str) -> None:
        if not underway.stopped:
            underway.stopped = True
            write_atomic(underway.job.file("stop"), why.encode())

    def _settle(self) -> None:
        """Takes what has come of the trials that ended."""
        for name, lost in self._workers.ended().items():
            underway = self._running[name]
            for line in underway.reports.new():
                self._report(underway, line)
            ended = read_end(underway.job)
            if ended is None:
                ended = Ended(FAILED, lost or "its process ended", 0.0, ())
            self._end(underway, ended)

    def _end(self, underway: Underway, ended: Ended) -> None:
        """Writes what came of a trial into the study, and says it."""
        from optuna.trial import TrialState

        self._running.pop(underway.job.name, None)
        trial = underway.trial
        keep_end(trial, ended)
        if ended.state == COMPLETE:
            self._fill(underway, ended)
            self.study.tell(trial, values_of(self.plan, ended.runs))
            self._best_s = self._best_seconds()
        else:
            known = {PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}
            self.study.tell(trial, state=known[ended.state])
        self.study.set_user_attr(SPENT, self.spent_s)
        self._teller.say(self._said(underway, ended))
        self._count_failures(underway, ended)

    def _fill(self, underway: Underway, ended: Ended) -> None:
        """Counts the return of a run that was over early for the steps that it did not need, where others go on."""
        settings = self.plan.settings
        if not settings.prune or not settings.to_threshold:
            return
        total = self.plan.base.options.total_timesteps
        for number, run in enumerate(ended.runs):
            done = underway.rung.get(number, 0)
            for rung in range(done + 1, total // self._rung + 1):
                step = number * total + rung * self._rung
                underway.trial.report(self._signed(run.value), step)

    def _best_seconds(self) -> float:
        """Seconds of the fastest run that was solved; 0 where none was."""
        found = [
            float(run["seconds"])
            for trial in self._trials()
            if trial.state.name == "COMPLETE"
            for run in runs_in(trial)
            if run["solved"]
        ]
        return min(found, default=0.0)

    def _now(self) -> str:
        """What runs, in words."""
        total = self.plan.base.options.total_timesteps
        parts = [
            f"trial {one.trial.number}: {one.steps / total:.0%} of its steps, return {one.last:.4g}"
            for one in self._running.values()
        ]
        return f"{self.spent_s:,.0f} s · {' · '.join(parts)}"

    def _said(self, underway: Underway, ended: Ended) -> str:
        done = sum(trial.state.is_finished() for trial in self._trials())
        best = ranked(self.plan, rows_of(self.plan, self.study))
        return line_of(self.plan, done, underway, ended, best[0] if best else None)

    def _count_failures(self, underway: Underway, ended: Ended) -> None:
        """EnvError where so many trials in a row have failed that the next would too."""
        if ended.state != FAILED:
            self._failures.clear()
            return
        self._failures.append(f"trial {underway.trial.number}: {ended.why}")
        if len(self._failures) >= self.plan.settings.max_failures:
            self._workers.interrupt()
            raise EnvError(
                f"{len(self._failures)} trials in a row have failed, the first of them: {self._failures[0]}. Mend that "
                f"and give the same command again, or raise max_failures; {self.folder / 'jobs'} has what they printed"
            )
