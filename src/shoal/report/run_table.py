"""The table of all runs: what `shoal runs` prints, and the state that a run is in."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shoal.report.lineage import lineage_of
from shoal.run.control import STARTING, is_starting, was_killed_at_start
from shoal.run.directory import list_runs
from shoal.run.status import GOING, is_running
from shoal.types.text import cell, decimal, printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from shoal.run.directory import RunDirectory

COLUMNS = (
    "run",
    "env",
    "algo",
    "seed",
    "steps",
    "return",
    "state",
    "seconds",
    "date",
)
NUMBERS = ("seed", "steps", "return", "seconds")
"""Columns of numbers, which stand to the right and are never broken."""
INTERRUPTED = "interrupted"
"""The state of a run whose process is gone."""
KILLED = "killed at its start"
"""What the table says where that is so before the run wrote a status."""
LAST = 5
"""Takeovers of a population that are shown unless all are asked for."""


def print_runs(root: Path, *, lineage: bool = False) -> None:
    """Lists the runs below `root`, oldest first; why some cannot be read stands below them.

    Then who took over from whom in runs with population-based training: the last LAST, or all with `lineage`.
    """
    runs = list_runs(root)
    if not runs:
        print(f"no runs below {printable(root)}; `shoal train CartPole-v1` makes one")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in COLUMNS:
        if name in NUMBERS:
            table.add_column(name, justify="right", overflow="fold")
        else:
            table.add_column(name, no_wrap=True, overflow="fold")
    damage: list[str] = []
    for run in runs:
        row, said = _row(run, root)
        table.add_row(*as_text(row))
        damage += said
    console().print(table)
    for said in damage:
        print(said)
    for run in runs:
        _print_lineage(run, root, None if lineage else LAST)


def _print_lineage(run: RunDirectory, root: Path, most: int | None) -> None:
    """Who took over from whom in a run; of one that cannot be read it was said before."""
    try:
        told = lineage_of(run, most=most)
    except (ValueError, OSError):
        return
    if told:
        print(f"{printable(run.path.relative_to(root))}: {printable(told[0])}")
    for said in told[1:]:
        print(f"  {printable(said)}")


def as_text(cells: Iterable[str]) -> list[Text]:
    """Cells of a table that show what they hold: no markup, no escape codes, no formulas."""
    return [Text(cell(shown)) for shown in cells]


def state_of(run: RunDirectory) -> str:
    """The state that the run's status tells; `interrupted` where its process is gone."""
    status = run.read_status()
    if is_starting(run):
        return STARTING
    if was_killed_at_start(run):
        return INTERRUPTED
    state = str(status.get("state", "unknown"))
    return INTERRUPTED if state in GOING and not is_running(run) else state


def console() -> Console:
    """Where tables are printed: the terminal's width, or 160 columns into a file or pipe."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def _row(run: RunDirectory, root: Path) -> tuple[list[str], list[str]]:
    """A run's row, and what is to be said of its damage."""
    where = str(run.path.relative_to(root))
    date = ""
    try:
        made = time.localtime(run.config.lstat().st_mtime)
        date = time.strftime("%Y-%m-%d %H:%M", made)
        config = run.read_config()
        status = run.read_status()
        state = state_of(run)
        if state == INTERRUPTED and not status:
            state = KILLED
    except (ValueError, OSError, OverflowError) as error:
        said = str(error) if str(run.path) in str(error) else f"{run.path}: {error}"
        return [where, *[""] * 5, "unreadable", "", date], [printable(said)]
    named = [str(config.get(key, "")) for key in ("env", "algo", "seed")]
    steps = f"{status['steps']:,}" if "steps" in status else "-"
    score = _decimal(status.get("greedy_return", status.get("return")))
    if (cost := status.get("greedy_cost")) is not None:
        score += f", cost {_decimal(cost)}"
    seconds = status.get("seconds")
    row = [where, *named, steps, score, state, _seconds(seconds), date]
    return row, []


def _decimal(value: float | None) -> str:
    return "-" if value is None else decimal(value)


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if abs(value) < 1e15 else f"{value:.6g}"
