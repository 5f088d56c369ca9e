"""`shoal sweep`: searches settings by many runs, and confirms the best ones on fresh seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shoal.cli.arguments import add_here, parse
from shoal.types import ConfigError

STATUSES = (
    "Exit status: 0, the sweep is over; 2, invalid options, settings or search space, and nothing has run; 3, too many "
    "trials in a row failed; 130, Ctrl-C: the same command goes on."
)


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `sweep`."""

    source: Annotated[
        tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE|DIRECTORY")
    ]
    """The sweep's file, a configuration with the tables [sweep] and [space], or its directory, to continue it."""
    out: Path | None = None
    """Directory of the sweep; default: sweeps/ and the file's name. What was interrupted there goes on."""
    trials: int | None = None
    """Budget of trials instead of the file's."""
    seconds: float | None = None
    """Budget of seconds of searching instead of the file's."""
    parallel: int | None = None
    """Trials at a time instead of the file's; 0: one a core."""
    fleet: str | None = None
    """Train on a Ray cluster: local, auto or ray://HOST:PORT."""
    show: bool = False
    """Only print what the sweep in DIRECTORY has found so far."""
    json: bool = False
    """Print the summary as JSON instead of lines."""
    trust: bool = False
    """Import and run what the file names (an environment, a policy, an algorithm), though nothing shows that you
    wrote it."""


def main(arguments: list[str], about: str) -> int:
    """Sweeps; the exit status."""
    given = parse(Given, arguments, command="sweep", about=f"{about}\n\n{STATUSES}")
    if given.trust:
        add_here()
    from shoal.experiment.sweep.sweep import show, sweep

    if given.show:
        if not given.source.is_dir():
            raise ConfigError(
                f"--show prints what the sweep in a directory has found, and {given.source} is none"
            )
        show(given.source, trust=given.trust, as_json=given.json)
        return 0
    result = sweep(
        given.source,
        out=given.out,
        trials=given.trials,
        seconds=given.seconds,
        parallel=given.parallel,
        fleet=given.fleet,
        panel="none" if given.json else "auto",
        trust=given.trust,
    )
    if given.json:
        show(result.path, trust=given.trust, as_json=True)
    return 0
