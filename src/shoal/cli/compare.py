"""`shoal compare`: runs or configurations over seeds, at equal environment steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from shoal.cli.arguments import add_here, parse

if TYPE_CHECKING:
    from shoal.report.compare import Trainer


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `compare`."""

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...")
    ]
    """Runs, directories of runs, or config files (*.toml), whose missing runs are trained."""
    seeds: int = 5
    """Number of seeds to train for each config file, counted up from its own seed."""
    plot: str = "compare.png"
    """PNG file to write."""
    run_dir: str = "runs"
    """Directory that holds the run directories."""
    trust: bool = False
    """Import and run what the file names (an environment, a policy, an algorithm), though nothing shows that you
    wrote it."""


def main(arguments: list[str], about: str) -> int:
    """Compares; the exit status."""
    given = parse(Given, arguments, command="compare", about=about)
    from shoal.report.compare import compare

    trainer: Trainer | None = None
    if any(path.endswith(".toml") for path in given.runs):
        if given.trust:
            add_here()
        from shoal.experiment.files import FileTrainer

        trainer = FileTrainer(given.trust)
    compare(
        given.runs,
        Path(given.run_dir),
        plot=Path(given.plot),
        seeds=given.seeds,
        trainer=trainer,
    )
    return 0
