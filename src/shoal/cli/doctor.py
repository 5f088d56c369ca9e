"""`shoal doctor`: what is wrong with a run, and what to try."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shoal.cli.arguments import parse


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `doctor`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, or a directory of runs (the newest is used)."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""
    json: bool = False
    """Print the findings as JSON."""


def main(arguments: list[str], about: str) -> int:
    """Examines; the exit status, 0 also where something is wrong."""
    given = parse(Given, arguments, command="doctor", about=about)
    from shoal.report.doctor.doctor import as_json, as_text, diagnose
    from shoal.run.directory import find

    run = find(given.run, Path(given.run_dir))
    findings = diagnose(run)
    if given.json:
        print(as_json(run, findings))
        return 0
    for line in as_text(findings):
        print(line)
    return 0
