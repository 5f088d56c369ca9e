"""Groups: runs whose configurations are equal but for the seed, and their curves on one grid of steps."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
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

    @property
    def made_ns(self) -> int:
        """When the run began, to tell the newer of two."""
        return self.directory.config.lstat().st_mtime_ns


@dataclass(frozen=True, slots=True)
class Group:
    """Runs whose configurations are equal but for the seed."""

    label: str
    curves: list[Curve]

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
    config = run.read_config()
    for name, kind in (("env", str), ("algo", str), ("seed", int)):
        if not isinstance(config.get(name), kind):
            raise ConfigError(
                f"{run.config} has no {name} that could be one; leave it out"
            )
    status = run.read_status()
    greedy, cost = status.get("greedy_return"), status.get("greedy_cost")
    own = config["env"], config["seed"], greedy, *columns
    return Curve(run, config, *own, greedy_cost=cost)


def grouped(curves: Sequence[Curve]) -> list[Group]:
    """Groups by configuration, each labeled by what sets it apart; of runs with one seed the newest counts."""
    newest: dict[tuple[str, int], Curve] = {}
    for curve in sorted(curves, key=lambda curve: curve.made_ns):
        newest[family(curve.config), curve.seed] = curve
    families: dict[str, list[Curve]] = {}
    for curve in curves:
        key = family(curve.config)
        group = families.setdefault(key, [])
        if newest[key, curve.seed] is curve:
            group.append(curve)
    labels = _labels([group[0].config for group in families.values()])
    groups: list[Group] = []
    for label, group in zip(labels, families.values(), strict=True):
        groups.append(Group(label, sorted(group, key=lambda curve: curve.seed)))
    return groups


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
