"""Watching in a terminal: where runs stand, redrawn in place from their directories until Ctrl-C."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.panel import Panel as RichPanel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shoal.report.facts import Facts, Processors, facts_of, find_named
from shoal.report.live import SPARK_WIDTH, clock, sparkline, time_bars
from shoal.run.following import Follower
from shoal.types import ConfigError
from shoal.types.text import decimal, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.run.directory import RunDirectory

EVERY_S = 0.5
COLUMNS = ("run", "state", "done", "of all", "left", "return", "greedy", "steps/s")
MOST_RUNS = 30
"""Runs in the table: of more, the newest."""
LOSSES_A_LINE = 3
SHOWN_INTERVENTIONS = 3
WIDTH = 100


class Watch:
    """One run, or several side by side."""

    def __init__(self, found: Sequence[tuple[RunDirectory, Path]]) -> None:
        """Nothing is read before `draw`.

        Args:
            found: the runs, each with the name that it is shown by.
        """
        shown = found[-MOST_RUNS:]
        self._runs = [run for run, _ in shown]
        self._names = [printable(short, 60) for _, short in shown]
        self._left_out = len(found) - len(shown)
        self._followers = [Follower(run.metrics) for run in self._runs]
        self._processors = [Processors() for _ in self._runs]

    def read(self) -> list[Facts]:
        """Where the runs stand now; what cannot be read of one is said in its `problems`."""
        found: list[Facts] = []
        for place, run in enumerate(self._runs):
            follower, problem = self._followers[place], ""
            try:
                while follower.poll():
                    pass
            except (ConfigError, OSError) as error:
                problem = printable(error, 400)
            facts = facts_of(run, follower, self._processors[place])
            if problem:
                facts.problems.append(problem)
            found.append(facts)
        return found

    def draw(self) -> RenderableType:
        """A panel of one run, or a table of several."""
        every = self.read()
        if len(every) == 1:
            return _panel(self._runs[0].path, every[0], self._followers[0])
        return self._table(every)

    def _table(self, every: Sequence[Facts]) -> RenderableType:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in COLUMNS:
            right = name not in ("run", "state")
            table.add_column(
                name, justify="right" if right else "left", overflow="fold"
            )
        for name, facts in zip(self._names, every, strict=True):
            row = [name, facts.state]
            row += ["-" if facts.steps is None else f"{facts.steps:,}"]
            row += ["-" if not facts.total else f"{100 * _share(facts):.0f} %"]
            row += ["-" if facts.left_s is None else clock(facts.left_s)]
            row += [_with_cost(facts.mean_return, facts.mean_cost)]
            row += [_with_cost(facts.greedy_return, facts.greedy_cost)]
            row += ["-" if facts.speed is None else f"{facts.speed:,.0f}"]
            table.add_row(*map(Text, row))
        parts: list[RenderableType] = [table]
        for name, facts in zip(self._names, every, strict=True):
            lines = [f"! {name}: {said}" for said in facts.problems]
            parts.extend(Text(said, style="yellow") for said in lines)
        if self._left_out:
            parts.append(Text(f"{self._left_out:,} older runs are not shown", "dim"))
        return Group(*parts)


def watch(asked: Sequence[str], root: Path, console: Console | None = None) -> int:
    """Shows runs until Ctrl-C; on what is no terminal, once. The exit status.

    Args:
        asked: runs, names of runs, or folders of runs.
        root: where they are searched for as well.
        console: where they are shown.

    Raises:
        ConfigError: one of them is not there.
    """
    console = console or Console()
    shown = Watch([found for name in asked for found in find_named(name, root)])
    if not console.is_terminal:
        console.print(shown.draw())
        return 0
    try:
        with RichLive(console=console, auto_refresh=False) as live:
            while True:
                live.update(shown.draw(), refresh=True)
                time.sleep(EVERY_S)
    except KeyboardInterrupt:
        return 0


def _panel(path: Path, facts: Facts, follower: Follower) -> RenderableType:
    figures = Table.grid(padding=(0, 2))
    for name, words in _figures(facts, follower):
        figures.add_row(name, words)
    both = Table.grid(padding=(0, 4))
    bars = time_bars(facts.shares) if facts.shares else ""
    both.add_row(figures, bars)
    parts: list[RenderableType] = [_progress(facts), "", both, *_losses(facts)]
    parts += _guard(facts)
    parts += [Text(f"! {said}", style="yellow") for said in facts.problems]
    seed = "" if facts.seed is None else f" · seed {facts.seed}"
    device = f" · {facts.device}" if facts.device else ""
    title = f"  {facts.env} · {facts.algo}{seed}{device}"
    return RichPanel(
        Group(*parts),
        title=Text.assemble(("shoal", "bold"), title),
        title_align="left",
        subtitle=Text(printable(_near(path), WIDTH - 8), "dim"),
        subtitle_align="left",
        border_style="dim",
        width=WIDTH,
    )


def _figures(facts: Facts, follower: Follower) -> list[tuple[str, Text]]:
    """The same figures as the live panel's, as far as a directory tells them."""
    said = facts.state
    if facts.reason:
        said += f" ({printable(facts.reason, 60)})"
    if facts.asked:
        said += f", {facts.asked}"
    rows = [("state", said)]
    if facts.speed is not None:
        rows.append(("speed", f"{facts.speed:,.0f} steps/s"))
    if facts.episodes is not None:
        rows.append(("episodes", f"{facts.episodes:,}"))
    rows.append(("return", _decimal(facts.mean_return)))
    _, _, returns = follower.series("episode/return", "step")
    if len(returns):
        rows.append(("", sparkline(np.asarray(returns).tolist(), SPARK_WIDTH)))
    if facts.greedy_return is not None:
        rows.append(("greedy", _decimal(facts.greedy_return)))
    costs = {"episode's cost": facts.mean_cost, "greedy cost": facts.greedy_cost}
    rows += [(name, _decimal(x)) for name, x in costs.items() if x is not None]
    if facts.cpu_cores is not None and facts.processes is not None:
        some = "1 process" if facts.processes == 1 else f"{facts.processes} processes"
        rows.append(("CPU", f"{facts.cpu_cores:.1f} cores by {some}"))
    if facts.cost:
        rows.append(("cost", facts.cost))
    return [(name, Text(words)) for name, words in rows]


def _progress(facts: Facts) -> RenderableType:
    row = Table.grid(padding=(0, 2))
    words = _progress_words(facts)
    if not facts.total:
        row.add_row(words)
        return row
    share = _share(facts)
    left = "" if facts.left_s is None else f"{clock(facts.left_s)} left"
    bar = ProgressBar(total=1.0, completed=share, width=32)
    row.add_row(bar, words, f"{100 * share:.0f} %", left)
    return row


def _share(facts: Facts) -> float:
    """How much of a run is done, from 0 to 1."""
    return min(1.0, (facts.steps or 0) / facts.total) if facts.total else 0.0


def _progress_words(facts: Facts) -> str:
    done = "-" if facts.steps is None else f"{facts.steps:,}"
    return f"{done} of {facts.total:,} {facts.counted}" if facts.total else done


def _losses(facts: Facts) -> Sequence[RenderableType]:
    cells: list[Text] = []
    for name, value in facts.losses.items():
        said = (printable(name, 40), "dim")
        cells.append(Text.assemble(said, f" {value:.4g}"))
    if not cells:
        return []
    table = Table.grid(padding=(0, 3))
    for at in range(0, len(cells), LOSSES_A_LINE):
        table.add_row(*cells[at : at + LOSSES_A_LINE])
    return ["", table]


def _guard(facts: Facts) -> Sequence[RenderableType]:
    """What the guard did last, and how often it acted."""
    if not facts.guard.count:
        return []
    times = "once" if facts.guard.count == 1 else f"{facts.guard.count:,} times"
    lines: list[RenderableType] = [Text(f"guard acted {times}", style="yellow")]
    for one in facts.guard.last[-SHOWN_INTERVENTIONS:]:
        words = f"  update {one.update:,}: {one.rule}, {one.action}: {one.said}"
        lines.append(Text(words, style="yellow"))
    return lines


def _decimal(value: float | None) -> str:
    if value is None:
        return "-"
    return decimal(value)


def _with_cost(mean: float | None, cost: float | None) -> str:
    """A return, and what an episode cost where its steps have a cost."""
    return (
        _decimal(mean) if cost is None else f"{_decimal(mean)}, cost {_decimal(cost)}"
    )


def _near(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
