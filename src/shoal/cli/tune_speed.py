"""`shoal tune-speed`: measures which settings train fastest on this machine, and writes them to a file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shoal.cli.arguments import ENV_OPTIONS
from shoal.cli.train import experiment_of
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.experiment.tuning import Row

STATUSES = "Exit status: 0, a file was written; 2, invalid options or settings, or they do not train; 130, Ctrl-C."
SHORTEST_S = 1.0


@dataclass(frozen=True, slots=True)
class Session:
    """Options of `tune-speed` that are no settings of a run."""

    seconds: float = 60.0
    """Stop after this many seconds with what was measured by then."""
    free: tuple[Literal["schedule", "num_envs", "act_block"], ...] = ()
    """Vary these too, which change more than speed: `schedule` (with async, how old the weights may be that act),
    `num_envs` (size and variety of batches), `act_block` (rounding)."""
    out: Path = Path("speed.toml")
    """File that gets the fastest settings."""
    config: Path | None = None
    """Start from this config.toml: a run's, or your own."""
    trust: bool = False
    """Import and run what that file names (an environment, a policy, an algorithm), though nothing shows that you
    wrote it."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        if not self.seconds >= SHORTEST_S:
            raise ConfigError(
                f"--seconds must be at least {SHORTEST_S:g}, got {self.seconds:g}"
            )


def main(arguments: list[str], about: str) -> int:
    """Measures; the exit status."""
    about = f"{about}\n\n{ENV_OPTIONS}\n\n{STATUSES}"
    experiment, session = experiment_of(
        arguments, Session, command="tune-speed", about=about
    )
    from shoal.experiment.speed_file import check_free, table_of, write_speed_file
    from shoal.experiment.tuning import tune
    from shoal.types.text import printable

    check_free(session.out)
    tuned = tune(experiment, seconds=session.seconds, free=session.free, tell=show)
    write_speed_file(session.out, experiment, tuned)
    print()
    for line in table_of(tuned):
        print(line)
    if tuned.best.changes:
        print(f"{tuned.gain:.2f} times as fast: {printable(tuned.best.name)}")
    else:
        print("nothing was faster than the settings as they are")
    changed = [name for name in session.free if name in tuned.best.changes]
    if changed:
        print(
            f"{', '.join(changed)}: changes what is learned too, not only its speed; compare returns before you keep it"
        )
    if "schedule" not in session.free and experiment.options.schedule == "sync":
        print(
            "--free schedule tries async too, where weights that act may be a rollout older than those that learn"
        )
    env = shlex.quote(printable(experiment.options.env))
    print(f"shoal train {env} --config {shlex.quote(printable(session.out))}")
    return 0


def show(row: Row) -> None:
    """A line for a candidate, as soon as it was measured."""
    from shoal.types.text import printable

    said = f"{row.steps_per_s:,.0f} steps/s"
    if row.probed is None:
        said = printable(row.error)
    print(f"{printable(row.name)}: {said}", flush=True)
