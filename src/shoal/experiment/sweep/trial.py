"""A trial: runs of one choice of settings, told by files, so that nobody needs to live to hear of them.

`NAME.jsonl` gets a line for each line of metrics, `NAME.json` the end; where `NAME.stop` appears, the run stops.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from shoal.llm.tasks.names import is_task_name
from shoal.run.directory import CONFIG, RunDirectory
from shoal.run.drafts import write_atomic
from shoal.run.guard.notes import STOPPED
from shoal.run.reading import STATUS_BYTES, open_regular, read_bytes, read_json
from shoal.run.records import METRICS_BYTES, lines_of
from shoal.types import ConfigError, text_of
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.run.callbacks import Record
    from shoal.run.run import Run

REPORTED = ("run", "step", "seconds", "return")
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """A trial's runs, as a process of this machine or of a fleet is told of them."""

    name: str
    folder: str
    """Where its files stand."""
    configs: list[dict[str, Any]]
    """A run's configuration each, with its name and its seed; one after another."""
    path: list[str] = field(default_factory=list[str])
    """Folders that modules are looked for in."""
    chosen: str = ""
    """What was chosen for it and its seeds, as JSON: `NAME.chosen` keeps it, as only the journal says it else."""

    def file(self, ending: str) -> Path:
        """One of its files."""
        return Path(self.folder) / f"{self.name}.{ending}"


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of one run."""

    seed: int
    value: float
    """Mean greedy return, or of training's last episodes where none were played."""
    seconds: float
    """Of training."""
    steps: int
    solved: bool
    path: str


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a trial."""

    state: str
    """complete, pruned or failed."""
    why: str
    """Why it did not come to its end; empty where it did."""
    seconds: float
    """Of training, of all its runs, those included that failed."""
    runs: tuple[Ran, ...]


class Reporter:
    """A callback that writes down how a run stands, and stops it where it is told to."""

    episodes = False

    def __init__(self, job: Job, number: int) -> None:
        """Of the run with this number among the job's."""
        self._job, self._number = job, number
        self.seconds = 0.0

    def __call__(self, run: Run, record: Record, /) -> None:
        """A line of metrics."""
        line = cast("dict[str, float]", record)
        self.seconds = float(line["time/elapsed"])
        told = {
            "run": self._number,
            "step": int(line["step"]),
            "seconds": self.seconds,
            "return": line.get("episode/return"),
        }
        path = self._job.file("jsonl")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        handle = os.open(path, flags, 0o644)
        try:
            os.write(handle, (json.dumps(told) + "\n").encode())
        finally:
            os.close(handle)
        if why := stopped(self._job):
            run.stop(why)


def stopped(job: Job) -> str:
    """Why a trial is to stop; empty where it is not."""
    try:
        said = read_bytes(job.file("stop"), at_most=STATUS_BYTES)
    except FileNotFoundError:
        return ""
    return printable(said.decode(errors="replace")) or PRUNED


def run_trial(given: dict[str, Any]) -> None:
    """Runs a job, or goes on with it, and writes how it ended. Ctrl-C and SIGTERM leave it to be gone on with."""
    job = Job(**given)
    sys.path += [folder for folder in job.path if folder not in sys.path]
    ran: list[Ran] = []
    for number, config in enumerate(job.configs):
        reporter = Reporter(job, number)
        try:
            ran.append(_trained(config, reporter))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it is: the sweep goes on
            seconds = reporter.seconds + sum(one.seconds for one in ran)
            why = f"{type(error).__name__}: {text_of(cast('Exception', error))}"
            _write(job, Ended(FAILED, why, seconds, tuple(ran)))
            return
        if why := stopped(job):
            spent = sum(one.seconds for one in ran)
            _write(job, Ended(PRUNED, why, spent, tuple(ran)))
            return
    seconds = sum(one.seconds for one in ran)
    _write(job, Ended(COMPLETE, "", seconds, tuple(ran)))


def _trained(config: dict[str, Any], reporter: Reporter) -> Ran:
    """Trains a configuration, or resumes its run where there is one."""
    from shoal.experiment.experiment import Experiment
    from shoal.experiment.training import resume, start
    from shoal.experiment.trust import imported_by

    there = run_folder(config)
    if there.exists():
        _check_names(there, config)
        result = resume(there, panel="none", callbacks=[reporter], trust=True)
    else:
        named = [*imported_by(config)]  # the sweep has asked whether they may be
        experiment = Experiment.of_file(config, given=own_names(config), named=named)
        result = start(experiment, panel="none", callbacks=[reporter])
    if os.path.lexists(there / STOPPED):
        raise FloatingPointError(f"the guard stopped it: {result.stop_reason}")
    value = result.greedy_return
    if math.isnan(value):
        value = result.mean_return
    if not math.isfinite(value):
        raise FloatingPointError(
            f"no episode ended within {result.steps:,} steps, so the run has no return"
        )
    return Ran(
        config["seed"],
        value,
        result.seconds,
        result.steps,
        result.threshold is not None and result.solved,
        str(there),
    )


def own_names(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The name of a task for language models, which imports nothing of a stranger's; nothing of other names."""
    env = saved.get("env")
    return {"env": env} if isinstance(env, str) and is_task_name(env) else {}


def _check_names(there: Path, config: dict[str, Any]) -> None:
    """ConfigError where a run directory names other code than the sweep, whose names are trusted."""
    from shoal.experiment.trust import imported_by

    if imported_by(RunDirectory(there).read_config()) != imported_by(config):
        raise ConfigError(
            f"{there / CONFIG} names other code than the sweep does; delete that run directory, and it is trained again"
        )


def run_folder(config: dict[str, Any]) -> Path:
    """The run directory of a configuration that has a name."""
    env = re.sub(r"[^\w.-]+", "_", config["env"])
    return Path(config["run_dir"]) / env / config["algo"] / config["name"]


def _write(job: Job, ended: Ended) -> None:
    runs = [
        {name: getattr(one, name) for name in Ran.__dataclass_fields__}
        for one in ended.runs
    ]
    told = {
        "state": ended.state,
        "why": ended.why,
        "seconds": ended.seconds,
        "runs": runs,
    }
    write_atomic(job.file("json"), json.dumps(told).encode())


def read_end(job: Job) -> Ended | None:
    """How a trial ended; None where it has not. ConfigError where the file is damaged."""
    path = job.file("json")
    try:
        told = read_json(path, at_most=STATUS_BYTES)
        return _ended(cast("dict[str, Any]", told))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it, and the trial is run again"
        ) from error


def _ended(told: dict[str, Any]) -> Ended:
    runs = tuple(
        Ran(
            int(one["seed"]),
            float(one["value"]),
            float(one["seconds"]),
            int(one["steps"]),
            bool(one["solved"]),
            str(one["path"]),
        )
        for one in told["runs"]
    )
    if told["state"] not in (COMPLETE, PRUNED, FAILED):
        raise ValueError(f"there is no state {told['state']!r}")
    return Ended(str(told["state"]), str(told["why"]), float(told["seconds"]), runs)


@dataclass(slots=True)
class Reports:
    """Reads what a trial has reported since it was looked at last."""

    job: Job
    _read: int = 0

    def new(self) -> list[dict[str, float]]:
        """The lines that came since; those without a return are left out."""
        try:
            file = open_regular(self.job.file("jsonl"), at_most=METRICS_BYTES)
        except FileNotFoundError:
            return []
        found: list[dict[str, float]] = []
        with file:
            file.seek(self._read)
            for line in lines_of(file):
                if line is None:
                    continue
                self._read += len(line) + 1
                if told := _report_of(line):
                    found.append(told)
        return found


def _report_of(line: bytes) -> dict[str, float]:
    """What a line says; empty where it was torn, or no episode had ended yet."""
    try:
        told = cast("dict[str, Any]", json.loads(line))
        found = {name: float(told[name]) for name in REPORTED}
    except (ValueError, TypeError, KeyError):
        return {}
    return found if all(map(math.isfinite, found.values())) else {}
