"""Comparing configurations over seeds at equal environment steps: `shoal compare`."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from rich.table import Table
from rich.text import Text

from shoal.report.groups import (
    common_grid,
    differences,
    family,
    grouped,
    interpolate,
    names_of,
    read_curve,
)
from shoal.report.run_table import as_text, console, state_of
from shoal.report.statistics import band, iqm
from shoal.run.directory import RunDirectory, find_all, list_runs
from shoal.run.drafts import write_atomic
from shoal.run.reading import read_toml
from shoal.types import ConfigError
from shoal.types.text import decimal, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from shoal.report.groups import Curve, Group
    from shoal.report.statistics import Band
    from shoal.types import Floats

LONGEST = 400
"""Characters of a line that says in what runs differ."""
LEGEND_COLUMNS = 70
"""Characters of a line of the picture's legend, which would else be wider than the picture."""


class Trainer(Protocol):
    """What trains a configuration, where runs of it are missing."""

    def complete(
        self,
        saved: dict[str, object],
        /,
        **changes: str | float,
    ) -> dict[str, Any]:
        """The configuration with every default filled in, as a run of it would hold it."""
        ...

    def train_all(self, missing: Sequence[Missing], /) -> Sequence[Path]:
        """Trains configurations, one after another or side by side; their run directories, in this order."""
        ...


class Missing(NamedTuple):
    """A run that is to be trained."""

    what: str
    """The file and the seed, in words."""
    config: dict[str, Any]


def compare(
    paths: Sequence[str],
    root: Path,
    *,
    plot: Path,
    seeds: int = 5,
    trainer: Trainer | None = None,
) -> list[Group]:
    """Compares configurations at equal environment steps: prints a table and writes a PNG.

    Args:
        paths: runs, folders of runs (both also below `root`), names of runs, or config files; a config file is
            trained with `trainer` for as many of `seeds` seeds as have no finished run below `root`.
        root: where runs stand.
        plot: the PNG.
        seeds: how many seeds of a config file, from its own seed on.
        trainer: trains config files.

    A run without a finished episode, or without steps in common with the others, is left out, which is said.

    Raises:
        ConfigError: no such run, several environments, or nothing to compare.
    """
    if not paths:
        raise ConfigError(
            "nothing to compare; give runs, folders of runs, or config files (*.toml)"
        )
    files = [Path(path) for path in paths if path.endswith(".toml")]
    found: list[RunDirectory] = []
    for path in paths:
        if not path.endswith(".toml"):
            found += find_all(path, root)
    configs = {str(run.path): run.read_config() for run in found}
    configs |= {str(file): read_toml(file) for file in files}
    _check_one_environment(configs)
    if files:
        if trainer is None:
            raise ConfigError(
                f"{files[0]} is a configuration, and there is nothing to train it with"
            )
        found += train_missing(files, root, seeds=seeds, trainer=trainer)
    once = {run.path.resolve(): run for run in found}
    groups = grouped(_with_steps_in_common(_readable(list(once.values()))))
    for why in (why for group in groups for why in group.left_out):
        _leave_out(why)
    grid = common_grid(_curves(groups))
    rng = np.random.Generator(np.random.PCG64(0))
    bands = [band(interpolate(group.curves, grid), rng) for group in groups]
    _print_groups(groups, bands, grid)
    draw(groups, bands, grid, plot)
    print(f"plot: {printable(plot)}")
    return groups


def _readable(runs: Sequence[RunDirectory]) -> list[Curve]:
    """The curves of the runs that have one; ConfigError where fewer than two are left to compare."""
    curves: list[Curve] = []
    errors: list[ConfigError] = []
    for run in runs:
        try:
            curves.append(read_curve(run))
        except ConfigError as error:
            errors.append(error)
    if errors and len(curves) < 2:
        raise errors[0]
    for error in errors:
        _leave_out(str(error))
    return curves


def _with_steps_in_common(curves: list[Curve]) -> list[Curve]:
    """The curves that have episodes at the step at which most have; all of them where that is one curve alone."""
    steps = [float(curve.steps[0]) for curve in curves]
    kept = max((_at(curves, step) for step in steps), key=len)
    if len(kept) < 2:
        return curves
    for curve in curves:
        if curve not in kept:
            path, first, last = curve.directory.path, curve.steps[0], curve.steps[-1]
            _leave_out(
                f"{path} has episodes from step {first:,.0f} to {last:,.0f}, which the others have not in common"
            )
    return kept


def _at(curves: Sequence[Curve], step: float) -> list[Curve]:
    return [curve for curve in curves if curve.steps[0] <= step <= curve.steps[-1]]


def _leave_out(why: str) -> None:
    print(f"left out: {printable(why)}", flush=True)


def train_missing(
    files: Sequence[Path],
    root: Path,
    *,
    seeds: int,
    trainer: Trainer,
) -> list[RunDirectory]:
    """A run of each file and seed, to total_timesteps: a finished one below `root`, else a new one.

    Raises:
        ConfigError: before anything is trained: files of different environments or total_timesteps, or equal files.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {seeds}")
    place = str(root)
    configs: dict[Path, dict[str, Any]] = {}
    for file in files:
        saved = read_toml(file)
        configs[file] = trainer.complete(saved, stop_at=math.inf, run_dir=place)
    _check_comparable(configs, count=len(files))
    finished = _finished(root)
    runs: list[RunDirectory | None] = []
    missing: list[Missing] = []
    for file, config in configs.items():
        for seed in range(config["seed"], config["seed"] + seeds):
            run = finished.get((family(config), seed))
            runs.append(run)
            if run is None:
                own = trainer.complete(
                    read_toml(file), stop_at=math.inf, run_dir=place, seed=seed
                )
                missing.append(Missing(f"{file}, seed {seed}", own))
    trained = iter(trainer.train_all(missing))
    return [RunDirectory(next(trained)) if run is None else run for run in runs]


def draw(
    groups: Sequence[Group],
    bands: Sequence[Band],
    grid: Floats,
    path: Path,
) -> None:
    """Writes the curves with their intervals as a PNG."""
    from shoal.report import curves

    with curves.plain_style():
        figure = curves.blank(8, 5)
        axes = figure.add_subplot()
        _draw_bands(axes, groups, bands, grid)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, curves.png(figure, dpi=150))


def _draw_bands(
    axes: Axes, groups: Sequence[Group], bands: Sequence[Band], grid: Floats
) -> None:
    from shoal.report import curves

    for group, drawn in zip(groups, bands, strict=True):
        label = f"{printable(group.label)} ({len(group.curves)} seeds)"
        label = textwrap.fill(label, LEGEND_COLUMNS)
        curves.draw_band(axes, grid, drawn.middle, drawn.low, drawn.high, label)
    axes.set(
        title=printable(groups[0].curves[0].env),
        xlabel="environment steps",
        ylabel="mean return (IQM, 95 %)",
    )
    curves.mark_steps(axes)
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def _print_groups(groups: Sequence[Group], bands: Sequence[Band], grid: Floats) -> None:
    last = grid[-1]
    env = printable(groups[0].curves[0].env)
    title = Text(f"{env}, at {last:,.0f} environment steps")
    table = Table(
        box=None,
        header_style="bold",
        pad_edge=False,
        title=title,
        title_justify="left",
    )
    table.add_column("configuration", overflow="fold")
    costs = any(len(group.greedy_costs()) for group in groups)
    for name in (
        "seeds",
        "return (IQM)",
        "95 % interval",
        "greedy (IQM)",
        *(["greedy cost (IQM)"] if costs else []),
        "steps (median)",
        f"seconds to {last:,.0f}",
    ):
        table.add_column(name, justify="right")
    for group, drawn in zip(groups, bands, strict=True):
        table.add_row(*as_text(_group_row(group, drawn, last, costs=costs)))
    screen = console()
    screen.print(table)
    curves = _curves(groups)
    shortest = min(curves, key=lambda curve: curve.steps[-1])
    if any(curve.steps[-1] > last for curve in curves):
        path = printable(shortest.directory.path)
        said = f"{path} ends first; greedy returns are of each run's own end"
        screen.print(Text(said), soft_wrap=True)
    for line in _within(groups):
        screen.print(Text(line), soft_wrap=True)


def _within(groups: Sequence[Group]) -> list[str]:
    """In what the runs of a group differ besides their seeds."""
    said: list[str] = []
    for group in groups:
        names = names_of([curve.directory for curve in group.curves])
        configs = (curve.config for curve in group.curves)
        for line in differences(dict(zip(names, configs, strict=True))):
            follows = ""
            if line.startswith("total_timesteps:"):
                follows = "; schedules that follow it differ with it"
            said.append(f"runs of {group.label} differ in {line}{follows}")
    return [printable(line, LONGEST) for line in said]


def _group_row(group: Group, drawn: Band, last: float, *, costs: bool) -> list[str]:
    count = len(group.curves)
    interval = "-"
    if count > 1:
        interval = f"{decimal(drawn.low[-1])} to {decimal(drawn.high[-1])}"
    greedy = [_middle(group.greedy(), count)]
    if costs:
        greedy.append(_middle(group.greedy_costs(), count))
    steps = np.median([curve.steps[-1] for curve in group.curves])
    seconds = np.median(group.seconds_at(last))
    return [
        group.label,
        str(count),
        decimal(drawn.middle[-1]),
        interval,
        *greedy,
        f"{steps:,.0f}",
        f"{seconds:.1f}",
    ]


def _middle(scores: Floats, count: int) -> str:
    """The interquartile mean of the greedy scores of `count` runs, and of how many of them it is."""
    if not len(scores):
        return "-"
    said = decimal(float(iqm(scores)))
    return said if len(scores) == count else f"{said} ({len(scores)} of {count})"


def _curves(groups: Sequence[Group]) -> list[Curve]:
    return [curve for group in groups for curve in group.curves]


def _finished(root: Path) -> dict[tuple[str, int], RunDirectory]:
    """The finished runs below `root` by configuration and seed; those that cannot be read are passed over."""
    found: dict[tuple[str, int], RunDirectory] = {}
    for run in list_runs(root):
        try:
            config = run.read_shown()
            if "seed" in config and state_of(run) == "finished":
                found[family(config), config["seed"]] = run
        except (ConfigError, ValueError):
            continue
    return found


def _check_comparable(configs: Mapping[Path, dict[str, Any]], *, count: int) -> None:
    """ConfigError unless configurations differ, but neither in their environment nor in total_timesteps."""
    _check_one_environment({str(file): config for file, config in configs.items()})
    budgets = {file: config["total_timesteps"] for file, config in configs.items()}
    if len(set(budgets.values())) > 1:
        said = ", ".join(f"{file}: {steps:,}" for file, steps in budgets.items())
        raise ConfigError(
            f"configurations are compared at equal total_timesteps ({said}); make them equal"
        )
    families = {family(config) for config in configs.values()}
    if len(families) < count:
        raise ConfigError(
            f"of {', '.join(map(str, configs))} two are the same configuration; leave one out"
        )


def _check_one_environment(configs: Mapping[str, Mapping[str, object]]) -> None:
    first: dict[str, str] = {}
    for name, config in configs.items():
        env = config.get("env")
        if env is None:
            raise ConfigError(f'{name} names no env; add env = "..."')
        first.setdefault(str(env), name)
    if len(first) > 1:
        said = ", ".join(f"{env} ({name})" for env, name in first.items())
        raise ConfigError(
            f"runs of several environments cannot be compared: {said}; compare one environment at a time"
        )
