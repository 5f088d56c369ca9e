"""Jobs: a choice of settings as runs that a process is told of, and several of them run side by side."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shoal.experiment.sweep.plan import for_trials
from shoal.experiment.sweep.space import changed
from shoal.experiment.sweep.trial import FAILED, Ended, Job, read_end
from shoal.run.drafts import write_atomic
from shoal.run.reading import STATUS_BYTES, read_bytes
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from shoal.experiment.sweep.plan import Plan
    from shoal.experiment.sweep.processes import Workers

LOOK_S = 0.05
TRIALS, JOBS = "trials", "jobs"
"""Folders of a sweep's directory: the run directories, and the files that tell of them."""


def job_of(
    plan: Plan,
    folder: Path,
    name: str,
    values: Mapping[str, object],
    *,
    seeds: Sequence[int] = (),
) -> Job:
    """The job of a choice of settings: a run for each seed, one after another.

    Args:
        plan: the sweep's.
        folder: its directory.
        name: of the job.
        values: the settings, by dotted names.
        seeds: those of a trial unless given.
    """
    first = plan.base.options.seed
    seeds = seeds or range(first, first + plan.settings.seeds)
    chosen = json.dumps(
        {"settings": dict(values), "seeds": list(seeds)}, sort_keys=True, default=str
    )
    experiment = for_trials(plan.base, plan.settings)
    try:
        experiment = changed(experiment, values)
    except ConfigError:  # said when it is begun
        seeds = ()
    configs: list[dict[str, Any]] = []
    for seed in seeds:
        options = replace(
            experiment.options,
            seed=seed,
            name=f"{name}-seed{seed}",
            run_dir=str(folder / TRIALS),
        )
        configs.append(replace(experiment, options=options).to_file())
    path = [place for place in sys.path if place]
    return Job(name, str(folder / JOBS), configs, path, chosen)


def chosen_for(plan: Plan, folder: Path, name: str) -> dict[str, object]:
    """What was drawn for a job, by the study's names, as it was written down when the job was claimed.

    Empty where it was not, or is not of this space. A journal that has lost its end draws the same by that.
    """
    path = folder / JOBS / f"{name}.chosen"
    try:
        known: Any = json.loads(read_bytes(path, at_most=STATUS_BYTES))
        values = known["settings"]
        found = {one.key: one.drawn_for(values[one.name]) for one in plan.space}
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # `claim` says it
        return {}
    return {} if None in found.values() else found


def claim(job: Job) -> None:
    """Writes down what a job is of, before anything of it is taken or begun.

    Raises:
        ConfigError: what is there came of other settings, which the journal has lost.
    """
    path = job.file("chosen")
    try:
        known = read_bytes(path, at_most=STATUS_BYTES).decode(errors="replace")
    except FileNotFoundError:
        write_atomic(path, job.chosen.encode())
        return
    if known != job.chosen:
        raise ConfigError(
            f"{path} says that {job.name} is of {printable(known, 300)}, and the study of {job.chosen}: study.journal "
            "has lost what was drawn; restore it from a copy, or begin the sweep in another directory: --out"
        )


def run_jobs(
    jobs: Sequence[Job],
    workers: Workers,
    *,
    parallel: int,
    tell: Callable[[Job, Ended], object],
) -> dict[str, Ended]:
    """Runs jobs side by side, in their order, less those that have ended before; what came of each by its name."""
    found: dict[str, Ended] = {}
    for job in jobs:
        claim(job)
    left = [job for job in jobs if not _take(job, found)]
    running: dict[str, Job] = {}
    while left or running:
        while left and len(running) < parallel:
            job = left.pop(0)
            running[job.name] = job
            workers.begin(job)
        for name, lost in workers.ended().items():
            job = running.pop(name)
            if not _take(job, found):
                said = lost or "its process ended"
                found[name] = Ended(FAILED, said, 0.0, ())
            tell(job, found[name])
        time.sleep(LOOK_S)
    return found


def _take(job: Job, found: dict[str, Ended]) -> bool:
    """Takes what has come of a job; whether anything has."""
    ended = read_end(job)
    if ended is not None:
        found[job.name] = ended
    return ended is not None
