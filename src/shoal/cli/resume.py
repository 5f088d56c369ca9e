"""`shoal resume`: continues a run from its newest checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tyro

from shoal.cli.arguments import parse
from shoal.cli.statuses import INTERRUPTED, MET, MISSED, STATUSES
from shoal.cli.train import panel_name


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `resume`."""

    run: tyro.conf.Positional[str]
    """A run directory, or a folder of runs (the newest)."""
    run_dir: str = "runs"
    """A folder in which RUN is looked for as well."""
    total_timesteps: int | None = None
    """Environment steps of the whole run, if different from before."""
    stop_at: float | None = None
    """Mean return at which training stops, if different from before; inf never stops early."""
    device: str | None = None
    """Where the policy learns, if different from before: cpu, cuda or cuda:1."""
    json: bool = False
    """Print each line of metrics as JSON."""
    plain: bool = False
    """Print plain lines instead of the live panel."""
    report: bool = True
    """Plot curves.png and report.html into the run directory at the end."""


def main(arguments: list[str], about: str) -> int:
    """Continues; the exit status."""
    given = parse(Given, arguments, command="resume", about=f"{about}\n\n{STATUSES}")
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
        **wanted,
    )
    if result.interrupted:
        return INTERRUPTED
    return MET if result.solved else MISSED
