"""The table of all runs: what `shoal runs` prints, and the state that a run is in."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shoal.run.directory import list_runs
from shoal.types.text import cell, printable

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


def print_runs(root: Path) -> None:
    """Lists the runs below `root`, oldest first."""
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
    for run in runs:
        table.add_row(*as_text(_row(run, root)))
    console().print(table)


def as_text(cells: Iterable[str]) -> list[Text]:
    """Cells of a table that show what they hold: no markup, no escape codes, no formulas."""
    return [Text(cell(shown)) for shown in cells]


def state_of(run: RunDirectory) -> str:
    """The state that the run's status tells; `interrupted` where its process is gone."""
    status = run.read_status()
    state = str(status.get("state", "unknown"))
    if state == "running" and not _alive(status.get("pid"), run.status):
        return "interrupted"
    return state


def console() -> Console:
    """Where tables are printed: the terminal's width, or 160 columns into a file or pipe."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def _row(run: RunDirectory, root: Path) -> list[str]:
    where = str(run.path.relative_to(root))
    date = ""
    try:
        made = time.localtime(run.config.lstat().st_mtime)
        date = time.strftime("%Y-%m-%d %H:%M", made)
        config = run.read_config()
        status = run.read_status()
        state = state_of(run)
    except (ValueError, OSError, OverflowError) as error:
        said = str(error).replace(f"{run.path}/", "")
        return [where, *[""] * 5, f"unreadable: {printable(said, 60)}", "", date]
    named = [str(config.get(key, "")) for key in ("env", "algo", "seed")]
    steps = f"{status['steps']:,}" if "steps" in status else "-"
    score = status.get("greedy_return", status.get("return"))
    seconds = status.get("seconds")
    return [where, *named, steps, _decimal(score), state, _decimal(seconds), date]


def _decimal(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if abs(value) < 1e15 else f"{value:.6g}"


def _alive(pid: int | None, status: Path) -> bool:
    """Whether the process that wrote `status` lives; a later process with its number is another one."""
    if pid is None or pid >= 2**31:
        return False
    try:
        process = psutil.Process(pid)
        is_writer = process.create_time() <= status.stat().st_mtime + 1
        return is_writer and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
