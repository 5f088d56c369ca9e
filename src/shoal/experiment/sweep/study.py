"""The study: what was drawn and what came of it, in Optuna's journal in the sweep's directory."""

from __future__ import annotations

import importlib.util
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from shoal.experiment.sweep.settings import RETURN
from shoal.experiment.sweep.space import changes_of
from shoal.run.reading import DamagedError, open_regular, read_bytes
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from shoal.experiment.sweep.plan import Plan
    from shoal.experiment.sweep.trial import Ended, Ran

JOURNAL = "study.journal"
JOURNAL_BYTES = 256 << 20
NAME = "sweep"
STARTUP = 10
"""Trials that are drawn at random, before what was good is drawn from."""
UNPRUNED = 5
"""Trials that come to their end before any is stopped by the median."""
RUNGS = 20
"""Environment steps at which trials are compared: every twentieth of a run."""
FIRST_RUNG = 3
"""The first at which one may be stopped."""
UNSOLVED_S = 1e6
"""Seconds that a run counts which did not meet the threshold, and a second for each unit that its return lacks."""
ENDED = "ended"
"""The attribute of a trial that holds what came of it."""


def check_optuna() -> None:
    """ConfigError where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "sweeps need Optuna, which is not installed: pip install 'shoal-rl[sweep]'"
        )


@contextmanager
def quiet() -> Generator[None]:
    """Optuna without its own messages, for as long as this lasts."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def open_study(folder: Path, plan: Plan, *, copy_of: Path | None = None) -> Study:
    """The study of a sweep's directory, made where there is none. Only one process may have it open.

    Args:
        folder: where the journal is.
        plan: the sweep's.
        copy_of: the sweep's directory, where `folder` holds a copy.

    Raises:
        ConfigError: the journal is damaged, too large, or no file.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import StudyDirection

    path = folder / JOURNAL
    _mend(path)
    larger, less = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    names = plan.settings.objectives
    directions = [larger if name == RETURN else less for name in names]
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=_unlocked()))
        study = optuna.create_study(
            storage=storage,
            study_name=NAME,
            directions=directions,
            pruner=_pruner(plan),
            load_if_exists=True,
        )
        begun = len(study.get_trials(deepcopy=False))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{(copy_of or folder) / JOURNAL} is damaged ({type(error).__name__}: {error}); restore it from a copy, or "
            "begin the sweep in another directory: --out"
        ) from error
    # Another seed where it goes on, or it would draw again what it drew before.
    study.sampler = optuna.samplers.TPESampler(
        n_startup_trials=STARTUP, seed=(plan.base.options.seed + begun) % 2**32
    )
    return study


def _pruner(plan: Plan) -> Any:
    """What stops trials: Optuna's medians at equal steps; nothing where there are two objectives, as it cannot."""
    from optuna import pruners

    settings = plan.settings
    if not settings.prune or len(settings.objectives) > 1:
        return pruners.NopPruner()
    return pruners.MedianPruner(
        n_startup_trials=UNPRUNED,
        n_warmup_steps=FIRST_RUNG * rung_steps(plan),
        n_min_trials=UNPRUNED,
    )


def rung_steps(plan: Plan) -> int:
    """Environment steps between two comparisons."""
    return max(1, plan.base.options.total_timesteps // RUNGS)


def _unlocked() -> Any:
    """A lock that nobody waits for: the directory's own lock lets one process in, and is gone when that is killed."""
    from optuna.storages.journal import JournalFileOpenLock

    class Unlocked(JournalFileOpenLock):
        """No lock."""

        def acquire(self) -> bool:
            """At once."""
            return True

        def release(self) -> None:
            """Nothing."""

    return Unlocked("")


def copy_journal(folder: Path, to: Path) -> None:
    """Copies a sweep's journal, to be looked at while it goes on; ConfigError where it is no file or too large."""
    try:
        data = read_bytes(folder / JOURNAL, at_most=JOURNAL_BYTES)
    except FileNotFoundError:
        return
    (to / JOURNAL).write_bytes(data)


def _mend(path: Path) -> None:
    """Cuts off a last line that a killed process left torn; ConfigError where the journal is no file or too large."""
    try:
        with open_regular(path, at_most=JOURNAL_BYTES) as file:
            data = file.read()
    except FileNotFoundError:
        return
    except DamagedError as error:
        raise ConfigError(f"{error}; the sweep cannot be continued") from error
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(path, end)


def drawn(plan: Plan, trial: Trial) -> dict[str, object]:
    """Draws a trial's settings, or finds those that it has; by dotted names."""
    found = {one.key: one.draw(trial) for one in plan.space}
    return changes_of(plan.space, found)


def with_drawn(trial: Trial, known: Mapping[str, object]) -> Trial:
    """A trial that draws what is known, by the study's names, as far as it has not drawn."""
    from optuna.trial import Trial as Again

    if not known:
        return trial
    own: Any = trial  # what Optuna keeps for itself, as it has nothing for a trial that was begun
    own.storage.set_trial_system_attr(own._trial_id, "fixed_params", dict(known))
    return Again(trial.study, own._trial_id)


def changes_in(plan: Plan, trial: FrozenTrial) -> dict[str, object]:
    """The settings of a trial in the study, by dotted names; empty where it drew none."""
    if any(one.key not in trial.params for one in plan.space):
        return {}
    return changes_of(plan.space, trial.params)


def enqueue_base(plan: Plan, study: Study) -> None:
    """Makes the first trial that of the settings which the sweep begins from, where the space holds them."""
    from shoal.experiment.sweep.kinds import value_of

    values: dict[str, Any] = {}
    for one in plan.space:
        found = one.drawn_for(value_of(plan.base, one.name))
        if found is not None:
            values[one.key] = found
    if values:
        study.enqueue_trial(values)


def keep_end(trial: Trial, ended: Ended) -> None:
    """Writes what came of a trial into the study."""
    runs = [
        {name: getattr(one, name) for name in type(one).__dataclass_fields__}
        for one in ended.runs
    ]
    trial.set_user_attr("seconds", ended.seconds)
    trial.set_user_attr("why", ended.why)
    trial.set_user_attr(ENDED, json.dumps(runs))


def values_of(plan: Plan, runs: tuple[Ran, ...]) -> list[float]:
    """The objectives' values of a trial: means over its runs."""
    found: list[float] = []
    for name in plan.settings.objectives:
        values = [value_of_run(plan, name, one) for one in runs]
        found.append(sum(values) / len(values))
    return found


def value_of_run(plan: Plan, objective: str, run: Ran) -> float:
    """A run's value: its return, its seconds, or those to the threshold, with `UNSOLVED_S` where it met none."""
    if objective == RETURN:
        return run.value
    if not plan.settings.to_threshold or run.solved:
        return run.seconds
    assert plan.threshold is not None
    return UNSOLVED_S + max(0.0, plan.threshold - run.value)


def runs_in(trial: FrozenTrial) -> list[dict[str, Any]]:
    """The runs of a trial in the study."""
    found = json.loads(trial.user_attrs.get(ENDED, "[]"))
    return cast("list[dict[str, Any]]", found)
