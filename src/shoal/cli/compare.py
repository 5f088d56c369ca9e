"""`shoal compare`: runs or configurations over seeds, at equal environment steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from shoal.cli.arguments import add_here, parse
from shoal.types import ConfigError

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
    fleet: str | None = None
    """Train missing runs side by side on a Ray cluster: local, auto or ray://HOST:PORT. All its nodes must see the run
    directories under the same path."""
    cpus: float = 1.0
    """CPUs that each run on the fleet takes."""
    retries: int = 2
    """How often a run on the fleet that fails or is lost is begun again."""
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
        trainer = _trainer(given)
    elif given.fleet is not None:
        raise ConfigError(
            "--fleet trains what is missing of configuration files (*.toml), and none is given"
        )
    compare(
        given.runs,
        Path(given.run_dir),
        plot=Path(given.plot),
        seeds=given.seeds,
        trainer=trainer,
    )
    return 0


def _trainer(given: Given) -> Trainer:
    """What trains configuration files here, or on the fleet that is named."""
    from shoal.experiment.files import FileTrainer, FleetTrainer
    from shoal.fleet.settings import check_where

    if given.fleet is None:
        return FileTrainer(given.trust)
    check_where(given.fleet)
    if given.retries < 0 or not 0 < given.cpus < inf:
        raise ConfigError(
            f"--cpus must be above 0 and --retries at least 0, got {given.cpus:g} and {given.retries}"
        )
    return FleetTrainer(given.trust, given.fleet, given.cpus, given.retries)
