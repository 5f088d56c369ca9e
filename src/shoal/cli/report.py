"""`shoal report`: plots the learning curves of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shoal.cli.arguments import parse


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `report`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, or a directory of runs (the newest is used)."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""


def main(arguments: list[str], about: str) -> int:
    """Plots; the exit status."""
    given = parse(Given, arguments, command="report", about=about)
    from shoal.report.html import write_report
    from shoal.run.directory import find
    from shoal.types.text import printable

    print(printable(write_report(find(given.run, Path(given.run_dir)))))
    return 0
