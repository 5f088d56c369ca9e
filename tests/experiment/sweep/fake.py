"""Workers that train nothing: what comes of a job is calculated from its settings, one look at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shoal.experiment.sweep.plan import Plan, keep_plan, read_plan
from shoal.experiment.sweep.search import Search
from shoal.experiment.sweep.study import enqueue_base, open_study, quiet
from shoal.experiment.sweep.teller import Teller
from shoal.experiment.sweep.trial import Job, stopped
from shoal.run.drafts import write_atomic

LINES = 20


class FakeWorkers:
    """A job reports a line of metrics at each look, and ends after `LINES` of them, or where it is told to stop."""

    def __init__(self, returned: Callable[[dict[str, Any], int], float], seconds: float = 10.0) -> None:
        """`returned`: the return of a configuration after so many of `LINES` parts of its steps; it may raise."""
        self._returned, self._seconds = returned, seconds
        self._running: dict[str, tuple[Job, int]] = {}
        self.begun: list[str] = []
        self.most = 0
        self.interrupted = False

    def begin(self, job: Job) -> None:
        """Begins one."""
        self._running[job.name] = job, 0
        self.begun.append(job.name)
        self.most = max(self.most, len(self._running))

    def ended(self) -> dict[str, str]:
        """A look: each job goes on by a line."""
        found: dict[str, str] = {}
        for name, (job, line) in list(self._running.items()):
            if self._go_on(job, line + 1):
                del self._running[name]
                found[name] = ""
            else:
                self._running[name] = job, line + 1
        return found

    def _go_on(self, job: Job, line: int) -> bool:
        config = job.configs[0]
        seconds = self._seconds * line / LINES
        try:
            value = self._returned(config, line)
        except FloatingPointError as error:
            write_end(job, "failed", str(error), seconds)
            return True
        step = config["total_timesteps"] * line // LINES
        told = {"run": 0, "step": step, "seconds": seconds, "return": value}
        with job.file("jsonl").open("a") as file:
            file.write(json.dumps(told) + "\n")
        if why := stopped(job):
            write_end(job, "pruned", why, seconds)
            return True
        if line < LINES:
            return False
        write_end(job, "complete", "", seconds, [config["seed"], value, seconds, step, value >= 475, "nowhere"])
        return True

    def interrupt(self) -> None:
        """Ends all."""
        self.interrupted = True

    def close(self) -> None:
        """Nothing is left."""


class Said(Teller):
    """Keeps the lines."""

    def __init__(self, lines: list[str]) -> None:
        """`lines` gets them."""
        super().__init__(silent=True)
        self._lines = lines

    def say(self, line: str) -> None:
        """Keeps it."""
        self._lines.append(line)


def write_end(job: Job, state: str, why: str, seconds: float, *runs: list[Any]) -> None:
    """What a trial writes when it has ended."""
    names = ("seed", "value", "seconds", "steps", "solved", "path")
    told = [dict(zip(names, run, strict=True)) for run in runs]
    whole = {"state": state, "why": why, "seconds": seconds, "runs": told}
    write_atomic(job.file("json"), json.dumps(whole).encode())


RATES = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


def make_plan(space: dict[str, Any] | None = None, /, **sweep: Any) -> Plan:
    """Of CartPole, over the learning rate unless a space is given."""
    return read_plan({"env": "CartPole-v1", "sweep": {"trials": 8, **sweep}, "space": space or RATES})


def search(folder: Path, plan: Plan, workers: FakeWorkers, *, parallel: int = 2) -> tuple[Any, list[str]]:
    """Searches in a folder; the study and what was said."""
    said: list[str] = []
    for name in ("jobs", "trials"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    keep_plan(folder, plan)
    with quiet():
        study = open_study(folder, plan)
        if not study.get_trials(deepcopy=False):
            enqueue_base(plan, study)
        Search(plan, study, folder, workers, parallel=parallel, teller=Said(said)).run()
        return study, said
