"""`shoal resume`: continues a run from its newest checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

import tyro

from shoal.cli.arguments import add_here, parse
from shoal.cli.statuses import MET, MISSED, STATUSES
from shoal.cli.train import panel_name
from shoal.types import ConfigError


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `resume`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, or a directory of runs (the newest is used)."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""
    total_timesteps: int | None = None
    """New total number of environment steps of the run."""
    stop_at: float | None = None
    """New mean return at which training stops; inf never stops early."""
    device: str | None = None
    """New torch device: cpu, cuda or cuda:1."""
    json: bool = False
    """Print each line of metrics as JSON."""
    plain: bool = False
    """Print plain lines instead of the live panel."""
    report: bool = True
    """Plot curves.png and report.html into the run directory when training ends."""
    trust: bool = False
    """Import and run what the file names (an environment, a policy, an algorithm), though nothing shows that you
    wrote it."""


def main(arguments: list[str], about: str) -> int:
    """Continues; the exit status."""
    _refuse_settings(arguments)
    given = parse(Given, arguments, command="resume", about=f"{about}\n\n{STATUSES}")
    if given.trust:
        add_here()
    from shoal.experiment.training import resume

    changes: dict[str, Any] = {
        "total_timesteps": given.total_timesteps,
        "stop_at": given.stop_at,
        "device": given.device,
    }
    wanted = {name: value for name, value in changes.items() if value is not None}
    result = resume(
        given.run,
        run_dir=given.run_dir,
        panel=panel_name(json=given.json, plain=given.plain),
        report=given.report,
        trust=given.trust,
        **wanted,
    )
    return MET if result.solved else MISSED


def _refuse_settings(arguments: list[str]) -> None:
    """ConfigError for a setting of training that a resumed run keeps as it is."""
    from shoal.experiment.keywords import Settings

    own = {field.name for field in fields(Given)}
    for argument in arguments:
        option, _, _ = argument.partition("=")
        name = option.removeprefix("--").partition(".")[0].replace("-", "_")
        if option.startswith("--") and name in Settings.__annotations__.keys() - own:
            raise ConfigError(
                f"resume cannot change {name!r}, only total_timesteps, stop_at and device (shoal.resume in Python "
                "takes what changes no result, too); a new run with it: shoal train --config RUN/config.toml "
                f"{option} ..."
            )
