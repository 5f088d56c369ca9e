"""The plan of a sweep: what its file says, checked before anything runs, and the directory that keeps it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import tomli_w

from shoal import algos
from shoal.algos.presets import preset, presets
from shoal.experiment.experiment import Experiment
from shoal.experiment.options import Options
from shoal.experiment.placed import placed
from shoal.experiment.settings import (
    build,
    flat,
    names_of,
    shallow,
    without_none,
)
from shoal.experiment.sweep.inferred import infer
from shoal.experiment.sweep.settings import SweepSettings, check_names
from shoal.experiment.sweep.space import as_tables, changed, read_space
from shoal.experiment.sweep.trial import own_names
from shoal.experiment.trust import check, check_alone, imported_by, seal
from shoal.run.drafts import write_atomic
from shoal.run.origin import TABLE, Origin
from shoal.run.reading import read_toml
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.experiment.sweep.space import Parameter

FILE = "sweep.toml"
MOVABLE = ("trials", "seconds", "parallel", "fleet", "retries", "confirm_seeds")
"""Settings of a sweep that may differ when it goes on: they decide how far it goes and where."""
EXAMPLE = (
    'env = "CartPole-v1"\n[sweep]\ntrials = 32\nsearch = ["learning_rate", "gamma"]'
)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a sweep is begun with."""

    settings: SweepSettings
    space: Sequence[Parameter]
    base: Experiment
    """The settings that every trial starts from."""
    threshold: float | None
    """The return that solves the task, where there is one."""

    def table(self) -> dict[str, Any]:
        """The plan as a file holds it, every default and range spelled out."""
        own = without_none(replace_search(self.settings))
        whole = self.base.to_file() | {"preset": "none"}
        return whole | {"sweep": own, "space": as_tables(self.space)}


def replace_search(settings: SweepSettings) -> dict[str, object]:
    """The settings without what was inferred, as the ranges are spelled out."""
    return shallow(replace(settings, search=()))


def read_plan(
    given: Mapping[str, Any],
    *,
    trust: bool = False,
    ours: bool = False,
    **changes: Any,
) -> Plan:
    """The plan of a file.

    Args:
        given: the file: a configuration as `train --config` reads it, with the tables [sweep] and [space].
        trust: import what it names, whoever wrote it.
        ours: no file says it, but the caller, whose names are imported as those of `train` are.
        changes: settings of the sweep that win over the file's.

    Raises:
        ConfigError: settings, a space, an objective or a budget that cannot work; nothing has run then.
    """
    whole = dict(given)
    table, space = whole.pop("sweep", None), whole.pop("space", {})
    if not isinstance(table, Mapping):
        raise ConfigError(
            f"the file has no table [sweep], so it is no sweep; a small one:\n{EXAMPLE}"
        )
    if "env" not in whole:
        raise ConfigError(
            f"the file names no environment at its top, such as {EXAMPLE.partition(chr(10))[0]}"
        )
    named = {name: value for name, value in changes.items() if value is not None}
    own = {**cast("dict[str, Any]", table), **named}
    try:
        check_names(own, SweepSettings, training=names_of(Options))
        settings = build(SweepSettings, own)
    except ConfigError as error:
        if str(error).startswith("[sweep]"):
            raise
        raise ConfigError(f"[sweep]: {error}") from error
    if not ours:
        check_alone(whole, trust=trust, given=own_names(whole))
    base = Experiment.of_file(
        _with_preset(whole),
        given=own_names(whole),
        trust=trust,
        named=[*imported_by(whole)] if ours else (),
    )
    _check_base(base, settings)
    found = read_space(base, space, infer(base, settings.search))
    if not ours:
        _check_imports(found, trust=trust)
    return Plan(settings, found, base, _check_rows(base, settings, found))


def _check_imports(space: Sequence[Parameter], *, trust: bool) -> None:
    """ConfigError where a value of the space is the name of a function, which its trials would import and run."""
    for one in space:
        place, dot, setting = one.name.rpartition(".")
        for value in one.range.choices:
            settings = {place if dot else "algorithm": {setting: value}}
            if trust:
                check(settings, Origin.new(), trust=True, nameable=False)
            elif imported_by(settings):
                raise ConfigError(
                    f"[space.{one.name}] names {value!r}, which its trials would import and run. If you trust the "
                    "file: --trust, or trust=True in Python"
                )


def _with_preset(saved: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the environment's own preset beneath, as `shoal train ENV` has it."""
    if "preset" in saved:
        return saved
    algo, env = saved.get("algo", algos.DEFAULT), saved["env"]
    if not isinstance(algo, str) or not isinstance(env, str):
        return saved
    own = preset(algo, None, env)
    for name, values in presets(algo).items():
        if own and values == own:
            return saved | {"preset": name}
    return saved


def _check_base(base: Experiment, settings: SweepSettings) -> None:
    """ConfigError where a trial would take more cores than it has, or be a run of another kind."""
    options, cpus = base.options, settings.cpus
    if options.fleet is not None:
        raise ConfigError(
            "the trials are placed on a fleet by [sweep] fleet; take the setting fleet out of the top of the file"
        )
    taken = {"actors": options.actors, "learners": options.learners}
    if options.backend == "workers":
        taken["num_workers"] = options.num_workers
    for name, count in taken.items():
        if count > cpus:
            raise ConfigError(
                f"{name} = {count} processes need as many cores, and a trial has [sweep] cpus = {cpus}; set "
                f"cpus = {count}, or {name} to {cpus}"
            )
    if options.data is not None and not options.total_timesteps:
        raise ConfigError(
            "trials are compared at equal environment steps; set total_timesteps"
        )


def _check_rows(
    base: Experiment, settings: SweepSettings, space: Sequence[Parameter]
) -> float | None:
    """The return that solves the task; ConfigError where a setting would change nothing, or a threshold is needed."""
    first = {one.name: one.ends()[0][1] for one in space}
    with placed(changed(for_trials(base, settings), first)) as (there, rows):
        threshold = there.options.stop_at
        if threshold is None:
            threshold = getattr(rows.spec, "reward_threshold", None)
    if threshold is not None and not math.isfinite(threshold):
        threshold = None
    if settings.to_threshold and threshold is None:
        raise ConfigError(
            f'[sweep] objective = "seconds_to_threshold" needs a return that counts as solved, and {base.options.env} '
            "has none; set stop_at at the top of the file"
        )
    return threshold


def for_trials(base: Experiment, settings: SweepSettings) -> Experiment:
    """The settings as trials have them: their threads, and where they end."""
    options, cpus = base.options, settings.cpus
    own: dict[str, Any] = {
        "num_threads": cpus,
        "final_episodes": settings.episodes,
        "track": "none",
    }
    if not settings.to_threshold:
        own["stop_at"] = math.inf  # equal steps for all
    if options.backend == "workers":
        own |= {"num_workers": options.num_workers or cpus, "own_cores": False}
    if options.schedule == "async" and not options.actors:
        own["actors"] = cpus
    return replace(base, options=replace(options, **own))


def kept_plan(folder: Path, *, trust: bool = False, **changes: Any) -> Plan:
    """The plan that a sweep's directory holds."""
    return read_plan(read_toml(folder / FILE, links=False), trust=trust, **changes)


def keep_plan(folder: Path, plan: Plan) -> None:
    """Makes a sweep's directory, which is there, hold its plan; ConfigError where it holds another one."""
    path, table = folder / FILE, plan.table()
    if os.path.lexists(path):
        before = read_toml(path, links=False)
        _check_same(folder, before, table)
        table |= {TABLE: before[TABLE]} if TABLE in before else {}
    else:
        names = {name: table[name] for name in table if name not in ("sweep", "space")}
        table |= seal(Origin.new(), names).table()
    write_atomic(path, tomli_w.dumps(table).encode())


def _check_same(
    folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """ConfigError where a directory holds a sweep of other settings, with the first that differ."""
    theirs, ours = _comparable(before), _comparable(now)
    other = [x for x in {**theirs, **ours} if theirs.get(x) != ours.get(x)]
    if other:
        said = ", ".join(other[:3])
        raise ConfigError(
            f"{folder} holds another sweep, which differs in {said}; name another directory with --out, or continue "
            f"that one: shoal sweep {folder}"
        )


def _comparable(table: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a sweep the one that it is, by dotted names."""
    found = flat({name: part for name, part in table.items() if name != TABLE})
    for name in MOVABLE:
        found.pop(f"sweep.{name}", None)
    return found
