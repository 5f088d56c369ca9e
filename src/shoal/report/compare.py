"""Comparing runs: the table of all runs, and several configurations over seeds at equal environment steps."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from shoal.run import log
from shoal.run.directory import RunDirectory, list_runs, read_toml
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.report.panel import Outcome
    from shoal.types import Floats

NOT_COMPARED = ("seed", "name", "run_dir", "track")
"""Keys of a configuration that change no run but its seed and its place."""
GRID_POINTS = 200
RESAMPLES = 2000


class Trainer(Protocol):
    """What trains a configuration; `shoal.experiment.training` has it, which stands above this package."""

    def complete(self, saved: dict[str, Any], /, **changes: Any) -> dict[str, Any]:
        """The configuration with every default filled in, as a run of it would hold it."""
        ...

    def start_from(self, saved: dict[str, Any], /) -> Outcome:
        """Trains it."""
        ...


@dataclass(frozen=True, slots=True)
class Curve:
    """One run: its configuration, its status, and what its metrics say of the mean return."""

    directory: RunDirectory
    config: dict[str, Any]
    status: dict[str, Any]
    steps: Floats
    returns: Floats
    seconds: Floats


@dataclass(frozen=True, slots=True)
class Group:
    """Runs whose configurations are equal but for the seed."""

    label: str
    curves: list[Curve]

    def final(self, name: str, step: float) -> Floats:
        """Each run's `returns` or `seconds` at `step`."""
        return np.array(
            [np.interp(step, c.steps, getattr(c, name)) for c in self.curves]
        )

    def greedy(self) -> Floats:
        """The greedy returns of those runs that have one."""
        return np.array(
            [
                c.status["greedy_return"]
                for c in self.curves
                if "greedy_return" in c.status
            ]
        )


def print_runs(root: Path) -> None:
    """Lists the runs below `root`, oldest first."""
    runs = list_runs(root)
    if not runs:
        print(f"no runs below {root}; `shoal train CartPole-v1` makes one")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in (
        "run",
        "env",
        "algo",
        "seed",
        "steps",
        "return",
        "state",
        "seconds",
        "date",
    ):
        right = name in ("seed", "steps", "return", "seconds")
        table.add_column(
            name,
            justify="right" if right else "left",
            no_wrap=not right,
            overflow="fold",
        )
    for run in runs:
        table.add_row(*_runs_row(run, root))
    _console().print(table)


def state_of(run: RunDirectory) -> str:
    """The state that the run's status tells; `interrupted` where its process is gone."""
    status = run.read_status()
    state = str(status.get("state", "unknown"))
    return (
        "interrupted"
        if state == "running" and not _alive(status.get("pid"), run.status)
        else state
    )


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
        paths: runs, folders of runs (both also below `root`), or config files; a config file is trained with `trainer`
            for as many of `seeds` seeds as have no finished run below `root`.
        root: where runs stand.
        plot: the PNG.
        seeds: how many seeds of a config file, from its own seed on.
        trainer: trains config files.

    Raises:
        ConfigError: no such run, a run without metrics, several environments, or nothing in common to compare.
    """
    files = [Path(path) for path in paths if path.endswith(".toml")]
    found = [
        run
        for path in paths
        if not path.endswith(".toml")
        for run in _runs_at(path, root)
    ]
    if not paths:
        raise ConfigError(
            "nothing to compare; give runs, folders of runs, or config files (*.toml)"
        )
    _one_environment(
        {str(run.path): run.read_config() for run in found}
        | {str(f): read_toml(f) for f in files}
    )
    if files:
        if trainer is None:
            raise ConfigError(
                f"{files[0]} is a configuration, and there is nothing to train it with"
            )
        found += train_missing(files, root, seeds=seeds, trainer=trainer)
    groups = grouped(
        [read_curve(run) for run in {run.path.resolve(): run for run in found}.values()]
    )
    grid = common_grid([curve for group in groups for curve in group.curves])
    rng = np.random.Generator(np.random.PCG64(0))
    bands = [band(interpolate(group.curves, grid), rng) for group in groups]
    _print_groups(groups, bands, grid)
    draw(groups, bands, grid, plot)
    print(f"plot: {plot}")
    return groups


def train_missing(
    files: Sequence[Path], root: Path, *, seeds: int, trainer: Trainer
) -> list[RunDirectory]:
    """A run of each file and seed, to total_timesteps: a finished one below `root`, else a new one.

    Raises:
        ConfigError: before anything is trained: files of different environments or total_timesteps, or equal files.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {seeds}")
    changes = {"stop_at": math.inf, "run_dir": str(root)}
    configs = {file: trainer.complete(read_toml(file), **changes) for file in files}
    _one_environment({str(file): config for file, config in configs.items()})
    budgets = {
        str(file): config["algorithm"]["total_timesteps"]
        for file, config in configs.items()
    }
    if len(set(budgets.values())) > 1:
        said = ", ".join(f"{file}: {steps:,}" for file, steps in budgets.items())
        raise ConfigError(
            f"configurations are compared at equal total_timesteps ({said}); make them equal"
        )
    families = {file: family(config) for file, config in configs.items()}
    if len(set(families.values())) < len(files):
        raise ConfigError(
            f"of {', '.join(map(str, files))} two are the same configuration; leave one out"
        )
    whole = [
        (run.read_config(), run) for run in _whole(root) if state_of(run) == "finished"
    ]
    finished = {(family(config), config["seed"]): run for config, run in whole}
    wanted = [
        (file, configs[file]["seed"] + number)
        for file in files
        for number in range(seeds)
    ]
    runs: list[RunDirectory] = []
    for file, seed in wanted:
        run = finished.get((families[file], seed))
        if run is None:
            print(f"training {file}, seed {seed}", flush=True)
            result = trainer.start_from(
                trainer.complete(read_toml(file), **changes, seed=seed)
            )
            if result.interrupted:
                raise KeyboardInterrupt
            run = RunDirectory(result.path)
        runs.append(run)
    return runs


def family(config: Mapping[str, Any]) -> str:
    """The same text for configurations that are equal but for the seed."""
    return json.dumps(
        {k: v for k, v in config.items() if k not in NOT_COMPARED}, sort_keys=True
    )


def read_curve(run: RunDirectory) -> Curve:
    """A run's mean return over its steps; ConfigError when it has none."""
    lines = [
        line for line in log.read(run.metrics) if line.get("episode/return") is not None
    ]
    if not lines:
        raise ConfigError(
            f"{run.path} has no finished episode in its metrics; leave it out, or go on with `shoal resume {run.path}`"
        )
    columns = ("step", "episode/return", "time/elapsed")
    steps, returns, seconds = (
        np.array([line[name] for line in lines], np.float64) for name in columns
    )
    return Curve(run, run.read_config(), run.read_status(), steps, returns, seconds)


def grouped(curves: Sequence[Curve]) -> list[Group]:
    """Groups by configuration, each labelled by what sets it apart; of runs with one seed the newest counts."""
    families: dict[str, dict[int, Curve]] = {}
    for curve in curves:
        by_seed = families.setdefault(family(curve.config), {})
        before = by_seed.get(curve.config["seed"])
        if before is None or _made(curve) >= _made(before):
            by_seed[curve.config["seed"]] = curve
    found = [
        [by_seed[seed] for seed in sorted(by_seed)] for by_seed in families.values()
    ]
    flat = [_flat(group[0].config) for group in found]
    names = [
        name
        for name in {n: None for f in flat for n in f}
        if len({str(f.get(name)) for f in flat}) > 1
    ]
    labels = [
        ", ".join(_setting(name, f.get(name)) for name in names) or str(f["algo"])
        for f in flat
    ]
    return [Group(label, group) for label, group in zip(labels, found, strict=True)]


def common_grid(curves: Sequence[Curve], points: int = GRID_POINTS) -> Floats:
    """Equally spaced steps that every run has, up to the smallest common maximum."""
    first, last = (
        max(curves, key=lambda c: c.steps[0]),
        min(curves, key=lambda c: c.steps[-1]),
    )
    if first.steps[0] > last.steps[-1]:
        raise ConfigError(
            f"no steps in common: {last.directory.path} ends at {last.steps[-1]:,.0f}, before the first episodes of "
            f"{first.directory.path} at {first.steps[0]:,.0f}; train it further or leave it out"
        )
    return np.linspace(first.steps[0], last.steps[-1], points)


def interpolate(curves: Sequence[Curve], grid: Floats) -> Floats:
    """Mean returns [runs, grid], linear between the lines of the metrics."""
    return np.stack([np.interp(grid, curve.steps, curve.returns) for curve in curves])


def iqm(scores: Floats) -> Floats:
    """Interquartile mean over the first axis: the mean without the lowest and the highest quarter.

    A quarter is rounded down to whole runs, as in `scipy.stats.trim_mean(scores, 0.25)`, which rliable uses.

    Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice", arXiv 2108.13264.
    """
    cut = len(scores) // 4
    return np.sort(scores, axis=0)[cut : len(scores) - cut].mean(axis=0)


def bootstrap(
    scores: Floats, rng: np.random.Generator, *, resamples: int = RESAMPLES
) -> tuple[Floats, Floats]:
    """The 95 % stratified bootstrap interval of the interquartile mean (Agarwal et al. 2021).

    Args:
        scores: [strata, runs, ...]; runs are drawn anew within each stratum (an environment), never across.
        rng: draws.
        resamples: how many samples the percentiles are of.
    """
    strata, runs = scores.shape[:2]
    rows = np.arange(strata)[:, None]
    draws = np.stack(
        [
            iqm(
                scores[rows, rng.integers(runs, size=(strata, runs))].reshape(
                    strata * runs, *scores.shape[2:]
                )
            )
            for _ in range(resamples)
        ]
    )
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return low, high


@dataclass(frozen=True, slots=True)
class Band:
    """An interquartile mean over the grid and its interval."""

    middle: Floats
    low: Floats
    high: Floats


def band(returns: Floats, rng: np.random.Generator) -> Band:
    """The band of returns [runs, grid]; one environment is one stratum."""
    low, high = bootstrap(returns[None], rng)
    return Band(iqm(returns), low, high)


def draw(
    groups: Sequence[Group], bands: Sequence[Band], grid: Floats, path: Path
) -> None:
    """Writes the curves with their intervals as a PNG."""
    from shoal.report import curves

    figure = curves.blank(8, 5)
    axes = figure.add_subplot()
    for group, drawn in zip(groups, bands, strict=True):
        label = f"{group.label} ({len(group.curves)} seeds)"
        curves.draw_band(axes, grid, drawn.middle, drawn.low, drawn.high, label)
    axes.set(
        title=groups[0].curves[0].config["env"],
        xlabel="environment steps",
        ylabel="mean return (IQM, 95 %)",
    )
    axes.legend()
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(curves.png(figure, dpi=150))


def _print_groups(groups: Sequence[Group], bands: Sequence[Band], grid: Floats) -> None:
    at = f"{grid[-1]:,.0f}"
    title = f"{groups[0].curves[0].config['env']}, at {at} environment steps"
    table = Table(
        box=None, header_style="bold", pad_edge=False, title=title, title_justify="left"
    )
    table.add_column("configuration", overflow="fold")
    for name in (
        "seeds",
        "return (IQM)",
        "95 % interval",
        "greedy (IQM)",
        "steps (median)",
        f"seconds to {at}",
    ):
        table.add_column(name, justify="right")
    for group, drawn in zip(groups, bands, strict=True):
        greedy, count = group.greedy(), len(group.curves)
        of = "" if len(greedy) in (0, count) else f" ({len(greedy)} of {count})"
        table.add_row(
            group.label,
            str(count),
            f"{drawn.middle[-1]:.1f}",
            f"{drawn.low[-1]:.1f} to {drawn.high[-1]:.1f}" if count > 1 else "-",
            f"{iqm(greedy):.1f}{of}" if len(greedy) else "-",
            f"{np.median([c.steps[-1] for c in group.curves]):,.0f}",
            f"{np.median(group.final('seconds', grid[-1])):.1f}",
        )
    console = _console()
    console.print(table)
    curves = [curve for group in groups for curve in group.curves]
    shortest = min(curves, key=lambda c: c.steps[-1])
    if any(curve.steps[-1] > grid[-1] for curve in curves):
        console.print(
            f"{shortest.directory.path} ends first; greedy returns are of each run's own end",
            soft_wrap=True,
        )


def _runs_row(run: RunDirectory, root: Path) -> list[str]:
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.config.stat().st_mtime))
    where = str(run.path.relative_to(root))
    try:
        config, status, state = run.read_config(), run.read_status(), state_of(run)
    except (ConfigError, ValueError) as error:
        return [where, "", "", "", "", "", f"unreadable: {error}", "", made]
    score, seconds = (
        status.get("greedy_return", status.get("return")),
        status.get("seconds"),
    )
    return [
        where,
        str(config.get("env", "")),
        str(config.get("algo", "")),
        str(config.get("seed", "")),
        f"{status['steps']:,}" if "steps" in status else "-",
        "-" if score is None else f"{score:.1f}",
        state,
        "-" if seconds is None else f"{seconds:.1f}",
        made,
    ]


def _alive(pid: int | None, status: Path) -> bool:
    """Whether the process that wrote `status` lives; a later process with its number is another one."""
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        return (
            process.create_time() <= status.stat().st_mtime + 1
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False


def _runs_at(path: str, root: Path) -> list[RunDirectory]:
    for base in (Path(path), root / path):
        if (base / "config.toml").exists():
            return [RunDirectory(base)]
        if below := list_runs(base):
            return below
    raise ConfigError(f"no run at {path} or below; `shoal runs` lists them")


def _whole(root: Path) -> list[RunDirectory]:
    """The runs below `root` whose configuration and status can be read."""
    found: list[RunDirectory] = []
    for run in list_runs(root):
        try:
            if "seed" in run.read_config() and run.read_status():
                found.append(run)
        except (ConfigError, ValueError):
            continue
    return found


def _one_environment(configs: Mapping[str, Mapping[str, Any]]) -> None:
    first: dict[str, str] = {}
    for name, config in configs.items():
        env = config.get("env")
        if env is None:
            raise ConfigError(f'{name} names no env; add env = "..."')
        first.setdefault(env, name)
    if len(first) > 1:
        said = ", ".join(f"{env} ({name})" for env, name in first.items())
        raise ConfigError(
            f"runs of several environments cannot be compared: {said}; compare one environment at a time"
        )


def _made(curve: Curve) -> int:
    return curve.directory.config.stat().st_mtime_ns


def _flat(config: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """The settings that are compared, nested ones under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{at}{name}.".removeprefix("algorithm."))
        elif at or name not in NOT_COMPARED:
            flat[f"{at}{name}"] = value
    return flat


def _setting(name: str, value: Any) -> str:
    if name == "algo":
        return str(value)
    return f"{name} unset" if value is None else f"{name}={value}"


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=160)
