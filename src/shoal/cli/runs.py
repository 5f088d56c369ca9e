"""`shoal runs`: lists the runs of a folder."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.cli.arguments import parse


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `runs`."""

    run_dir: str = "runs"
    """Directory that holds the run directories."""
    lineage: bool = False
    """Show every agent that took over from another one, not the last few alone."""


def main(arguments: list[str], about: str) -> int:
    """Lists; the exit status."""
    given = parse(Given, arguments, command="runs", about=about)
    from shoal.report.run_table import print_runs
    from shoal.types.arguments import path_of

    print_runs(path_of("run_dir", given.run_dir), lineage=given.lineage)
    return 0
