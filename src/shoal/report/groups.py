"""Groups: runs whose configurations are equal but for the seed, and their curves on one grid of steps."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, cast

import numpy as np

from shoal.run.origin import TABLE
from shoal.run.records import read_metrics
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.run.directory import RunDirectory
    from shoal.types import Floats

NOT_COMPARED = ("seed", "name", "run_dir", "track", TABLE)
"""Keys of a configuration that change no run but its seed and its place."""
OF_LENGTH = ("total_timesteps", "stop_at", "confirm_episodes")
"""How long a run goes."""
OF_RECORDS = (
    "checkpoint_every",
    "keep_checkpoints",
    "eval_every",
    "eval_episodes",
    "final_episodes",
    "timeline",
)
"""What is kept and measured beside training."""
ALONGSIDE = (*OF_LENGTH, *OF_RECORDS)
"""What `resume` may change, too: runs that differ in it alone stand in one group, which is said."""
UNSET = "unset"
"""The key of a configuration that lists settings which are none."""
MOST_NAMES = 3
"""Runs that are named for a value."""
COLUMNS = ("step", "episode/return", "time/elapsed")
GRID_POINTS = 200


@dataclass(frozen=True, slots=True)
class Curve:
    """One run: its configuration, and what its metrics say of the mean return."""

    directory: RunDirectory
    config: Mapping[str, object]
    env: str
    seed: int
    greedy_return: float | None
    """Mean of the greedy episodes at its end; None where it did not get there."""
    steps: Floats
    returns: Floats
    seconds: Floats
    greedy_cost: float | None = None
    """Mean cost of those episodes; None where steps have none."""
    finished: bool = True
    """Whether it came to its end: it was not killed, and did not fail."""

    @property
    def made_ns(self) -> int:
        """When the run began, to tell the newer of two."""
        return self.directory.config.lstat().st_mtime_ns

    @property
    def length(self) -> float:
        """Steps that it was to have."""
        steps = self.config.get("total_timesteps")
        return float(steps) if isinstance(steps, int) else 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """Runs whose configurations are equal but for the seed, and for what stands in ALONGSIDE."""

    label: str
    curves: list[Curve]
    left_out: list[str] = field(default_factory=list[str])
    """A sentence for each other run of one of their seeds, of another length or that did not come to its end."""

    def seconds_at(self, step: float) -> Floats:
        """Each run's seconds of training at `step`."""
        return np.array([np.interp(step, c.steps, c.seconds) for c in self.curves])

    def greedy(self) -> Floats:
        """The greedy returns of those runs that have one."""
        found = [curve.greedy_return for curve in self.curves]
        return np.array([score for score in found if score is not None])

    def greedy_costs(self) -> Floats:
        """The greedy costs of those runs that have one."""
        found = [curve.greedy_cost for curve in self.curves]
        return np.array([cost for cost in found if cost is not None])


def family(config: Mapping[str, object]) -> str:
    """The same text for configurations that are equal but for the seed."""
    kept = {key: value for key, value in config.items() if key not in NOT_COMPARED}
    return json.dumps(kept, sort_keys=True, default=str)


def kin(config: Mapping[str, object]) -> str:
    """The same text for configurations that are equal but for the seed and what stands in ALONGSIDE."""
    return family(_of_training(config))


def _of_training(config: Mapping[str, object]) -> dict[str, object]:
    """A configuration without what stands in ALONGSIDE."""
    kept = {key: value for key, value in config.items() if key not in ALONGSIDE}
    unset = kept.pop(UNSET, ())
    names = cast("list[object]", unset) if isinstance(unset, list) else []
    left = [name for name in names if name not in ALONGSIDE]
    return kept | ({UNSET: left} if left else {})


def differences(configs: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The settings in which runs differ, beside their seeds and places: a line each, with each value and its runs.

    Args:
        configs: of the runs, by their names.
    """
    flat = {run: _flat(config) for run, config in configs.items()}
    names = dict.fromkeys(chain.from_iterable(flat.values()))
    names.pop(UNSET, None)
    said: list[str] = []
    for name in names:
        runs: dict[str, list[str]] = {}
        for run, settings in flat.items():
            value = settings.get(name)
            runs.setdefault("unset" if value is None else str(value), []).append(run)
        if len(runs) > 1:
            values = (f"{value} ({_some(named)})" for value, named in runs.items())
            said.append(f"{name}: {', '.join(values)}")
    return said


def names_of(runs: Sequence[RunDirectory]) -> list[str]:
    """The last parts of runs' paths; of several with the same one their paths."""
    names = [run.path.name for run in runs]
    return [
        name if names.count(name) == 1 else str(run.path)
        for name, run in zip(names, runs, strict=True)
    ]


def _some(runs: Sequence[str]) -> str:
    """The names of runs, or of the first and how many there are."""
    if len(runs) <= MOST_NAMES:
        return ", ".join(runs)
    return f"{runs[0]} and {len(runs) - 1} more"


def read_curve(run: RunDirectory) -> Curve:
    """A run's mean return over its steps; ConfigError when it has none."""
    metrics = read_metrics(run.metrics)
    if metrics.warning:
        warnings.warn(f"{run.metrics}: {metrics.warning}", stacklevel=2)
    lines = [line for line in metrics.lines if line.get("episode/return") is not None]
    if not lines:
        raise ConfigError(
            f"{run.path} has no finished episode in its metrics; leave it out, or go on with `shoal resume {run.path}`"
        )
    columns = [_column(lines, name) for name in COLUMNS]
    config = run.read_shown()
    for name, kind in (("env", str), ("algo", str), ("seed", int)):
        if not isinstance(config.get(name), kind):
            raise ConfigError(
                f"{run.config} has no {name} that could be one; leave it out"
            )
    status = run.read_status()
    greedy, cost = status.get("greedy_return"), status.get("greedy_cost")
    own = config["env"], config["seed"], greedy, *columns
    finished = status.get("state") == "finished"
    return Curve(run, config, *own, greedy_cost=cost, finished=finished)


def grouped(curves: Sequence[Curve]) -> list[Group]:
    """Groups by configuration, each labeled by what sets it apart; of each seed one run counts.

    That is one that finished, before one that did not; of several one of the length that most seeds have, so that
    seeds compare; then the longest, then the newest.
    """
    families: dict[str, list[Curve]] = {}
    for curve in curves:
        families.setdefault(kin(curve.config), []).append(curve)
    firsts = [_of_training(group[0].config) for group in families.values()]
    groups: list[Group] = []
    for label, group in zip(_labels(firsts), families.values(), strict=True):
        best = _one_a_seed(group)
        others = (_why_not(curve, best[curve.seed]) for curve in group)
        kept = [best[seed] for seed in sorted(best)]
        groups.append(Group(label, kept, [why for why in others if why]))
    return groups


def _one_a_seed(group: Sequence[Curve]) -> dict[int, Curve]:
    """The run of each seed that counts, as of `grouped`."""
    seeds: dict[float, set[int]] = {}
    for curve in group:
        if curve.finished:
            seeds.setdefault(curve.length, set()).add(curve.seed)

    def rank(curve: Curve) -> tuple[bool, int, float, int]:
        shared = len(seeds.get(curve.length, ()))
        return curve.finished, shared, curve.length, curve.made_ns

    return {curve.seed: curve for curve in sorted(group, key=rank)}


def _why_not(curve: Curve, kept: Curve) -> str:
    """Why another run of its seed counts; empty where a run counts itself, or is only the older of two alike."""
    if curve.finished != kept.finished:
        why = "came to its end"
    elif curve.length != kept.length:
        why = f"is {'longer' if kept.length > curve.length else 'as long as those of most seeds'}"
    else:
        return ""
    other, name = curve.directory.path, kept.directory.path.name
    return f"{other} has seed {curve.seed} of the same configuration, and so has {name}, which {why}"


def common_grid(curves: Sequence[Curve], points: int = GRID_POINTS) -> Floats:
    """Equally spaced steps that every run has, up to the smallest common maximum."""
    first = max(curves, key=lambda curve: curve.steps[0])
    last = min(curves, key=lambda curve: curve.steps[-1])
    if first.steps[0] > last.steps[-1]:
        raise ConfigError(
            f"no steps in common: {last.directory.path} ends at {last.steps[-1]:,.0f}, before the first episodes of "
            f"{first.directory.path} at {first.steps[0]:,.0f}; train it further or leave it out"
        )
    return np.linspace(first.steps[0], last.steps[-1], points)


def interpolate(curves: Sequence[Curve], grid: Floats) -> Floats:
    """Mean returns [runs, grid], linear between the lines of the metrics."""
    return np.stack([np.interp(grid, curve.steps, curve.returns) for curve in curves])


def _column(lines: Sequence[Mapping[str, float]], name: str) -> Floats:
    values = np.array([line.get(name) for line in lines], np.float64)
    return np.nan_to_num(values)  # None: the line does not say


def _labels(configs: Sequence[Mapping[str, object]]) -> list[str]:
    """For each configuration the settings that differ between them; with none, its algorithm.

    What only some of the algorithms have is told among those: elsewhere the algorithm's name says enough.
    """
    flat = [_flat(config) for config in configs]
    names = dict.fromkeys(chain.from_iterable(flat))
    labels: list[str] = []
    for settings in flat:
        alike = [other for other in flat if other.get("algo") == settings.get("algo")]
        said: list[str] = []
        for name in names:
            shared = all(name in other for other in flat)
            if _differ(name, flat if shared else alike):
                said.append(_setting(name, settings.get(name)))
        labels.append(", ".join(said) or str(settings["algo"]))
    return labels


def _differ(name: str, configs: Sequence[Mapping[str, object]]) -> bool:
    """Whether configurations have more than one value of a setting."""
    return len({str(settings.get(name)) for settings in configs}) > 1


def _flat(config: Mapping[str, object], at: str = "") -> dict[str, object]:
    """The settings that are compared, nested ones under dotted names."""
    flat: dict[str, object] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            inside = cast("Mapping[str, object]", value)
            flat |= _flat(inside, f"{at}{name}.".removeprefix("algorithm."))
        elif at or name not in NOT_COMPARED:
            flat[f"{at}{name}"] = value
    return flat


def _setting(name: str, value: object) -> str:
    if name == "algo":
        return str(value)
    if value is None:
        return f"{name} unset"
    return f"{name}={value}"
