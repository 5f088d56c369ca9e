"""Continued runs: which changes a run may go on with, and what is said of one that has nothing left to do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from shoal.experiment.foreign import said_of
from shoal.experiment.language import on_tasks
from shoal.experiment.options import CHANGEABLE, CHANGEABLE_PARTS
from shoal.run.callbacks import tell
from shoal.run.directory import rolling
from shoal.run.interrupts import CUT_SHORT
from shoal.run.records import read_metrics
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    from shoal.experiment.experiment import Experiment
    from shoal.run.directory import RunDirectory
    from shoal.run.run import Run

ANEW = (
    "this run has no checkpoint: there is nothing to go on from, so it begins at step 0"
)


def check_names(changes: Mapping[str, Any], functions: Collection[str]) -> None:
    """ConfigError for a setting that stays; `functions` are schedules that are given again."""
    for name in changes:
        if name not in (*CHANGEABLE, *CHANGEABLE_PARTS, *functions):
            if there := said_of(name):
                raise ConfigError(f"resume cannot change {name!r}; {there}")
            raise ConfigError(
                f"resume cannot change {name!r}, only {', '.join(CHANGEABLE)}; train a new run instead"
            )
    for name, parts in CHANGEABLE_PARTS.items():
        given = changes.get(name, {})
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"{name} of a resumed run is a dict of what changes, such as {{{parts[0]!r}: ...}}"
            )
        for part in cast("Mapping[str, Any]", given):
            if part not in parts:
                raise ConfigError(
                    f"resume cannot change '{name}.{part}', of {name} only {', '.join(parts)}; train a new run instead"
                )


def check_changed(before: Experiment, now: Experiment, where: RunDirectory) -> None:
    """ConfigError where a run cannot go on with what was changed, though it is a setting that may change."""
    _check_fleet(before, now)
    _check_count(before, now)
    _check_length(before, now, where)


@contextmanager
def length_told(before: Experiment, now: Experiment, run: Run) -> Generator[None]:
    """Says how far a run goes from where, before it does; afterwards, where it had nothing left to do."""
    where = run.directory
    assert where is not None
    updates = where.read_status().get("updates")
    _tell_begun(before, now, run, where)
    yield
    if run.updates == updates and run.stop_reason not in CUT_SHORT:
        _tell_finished(now, run, where)


def _tell_begun(
    before: Experiment, now: Experiment, run: Run, where: RunDirectory
) -> None:
    lines = where.metrics.stat().st_size if where.metrics.exists() else 0
    if not (rolling(where.checkpoints) or lines or where.read_status().get("updates")):
        run.warn(ANEW)
    was, wanted = before.options.total_timesteps, now.options.total_timesteps
    if was == wanted:
        return
    unit, done = unit_of(now), steps_of(where)
    said = f"total_timesteps is {wanted:,} from now on, and was {was:,}; {done:,} {unit} are done"
    if wanted < was:
        said += (
            ": what follows their share, such as schedules, is further on than before"
        )
    tell(run, said, how="note")


def _tell_finished(experiment: Experiment, run: Run, where: RunDirectory) -> None:
    done, total = steps_of(where), experiment.options.total_timesteps
    why, more = run.stop_reason, "stop_at=inf trains on to total_timesteps"
    if why == "total_timesteps":
        why, more = f"total_timesteps is {total:,}", "a larger one trains on"
    unit = unit_of(experiment)
    said = f"this run is finished already, after {done:,} {unit}: {why}; {more}"
    tell(run, said, how="note")


def steps_of(where: RunDirectory) -> int:
    """The environment steps (or answers) that a run has done, by its status, else by its metrics."""
    status = where.read_status()
    if "steps" in status:
        return status["steps"]
    lines = read_metrics(where.metrics).lines
    return int(lines[-1]["step"]) if lines else 0


def unit_of(experiment: Experiment) -> str:
    """What total_timesteps counts."""
    return "answers" if on_tasks(experiment.algorithm) else "steps"


def _check_length(before: Experiment, now: Experiment, where: RunDirectory) -> None:
    """ConfigError for fewer steps than are done; the number that the run has already is no change."""
    was, wanted = before.options.total_timesteps, now.options.total_timesteps
    done, unit = steps_of(where), unit_of(now)
    if wanted != was and wanted < done:
        raise ConfigError(
            f"total_timesteps={wanted:,}, but {where.path} has done {done:,} {unit} already, which cannot be taken "
            f"back. Give more than {done:,} to train on, leave it out to go on to {was:,}, or train a new run with "
            f"total_timesteps={wanted}"
        )


def _check_fleet(before: Experiment, now: Experiment) -> None:
    """ConfigError where environments would move between a fleet and this process: their states are of another kind."""
    was, wanted = before.options.fleet, now.options.fleet
    if (was is None) != (wanted is None):
        raise ConfigError(
            f"this run's fleet is {was!r}, and its checkpoints hold environments as they are there: fleet={wanted!r} "
            "cannot go on with them; train a new run with init_from instead"
        )


def _check_count(before: Experiment, now: Experiment) -> None:
    """ConfigError where rows of environments would be shared out anew."""
    was, wanted = before.options.learners, now.options.learners
    if was != wanted and not on_tasks(now.algorithm):
        raise ConfigError(
            f"this run has learners={was}, and its checkpoints hold the environments of each: learners={wanted} cannot "
            "go on with them; train a new run with init_from instead"
        )
