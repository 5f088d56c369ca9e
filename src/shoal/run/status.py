"""Status: what `run.json` says of a run while it goes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.run.directory import versions
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.run.directory import RunDirectory
    from shoal.run.run import Run


def status_of(run: Run, steps: int, seconds: float) -> dict[str, Any]:
    """Where a run stands after `steps` environment steps and `seconds`."""
    s, returns = run.settings, run.metrics.returns
    status = {
        "state": "running",
        "env": s.env,
        "algo": s.algo,
        "seed": s.seed,
        "steps": steps,
        "updates": run.updates,
        "episodes": run.metrics.episodes,
        "return": float(np.mean(returns)) if returns else None,
        "seconds": seconds,
        "stop_reason": run.stop_reason,
        "pid": os.getpid(),
        "versions": versions(),
    }
    if s.began_with:
        status["began_with"] = s.began_with
    return status


def check_new(directory: RunDirectory) -> None:
    """ConfigError where a run that has no checkpoint has had one: it must not begin anew over its lines."""
    if updates := directory.read_status().get("updates", 0):
        raise ConfigError(
            f"no checkpoint (such as {updates:010d}.json) in {directory.checkpoints}, but {directory.status.name} "
            f"says that the run made {updates} updates; restore the folder from a copy, or train a new run"
        )
