"""`shoal timeline`: who did what when in the last updates of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shoal.cli.arguments import parse


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `timeline`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, or a directory of runs (the newest is used)."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""


def main(arguments: list[str], about: str) -> int:
    """Draws; the exit status."""
    given = parse(Given, arguments, command="timeline", about=about)
    from shoal.report.timelines import write_timeline
    from shoal.run.directory import find
    from shoal.types.text import printable

    for line in write_timeline(find(given.run, Path(given.run_dir))):
        print(printable(line, 400))
    return 0
