"""Status: what `run.json` says of a run while it goes on, and whether its process still does."""

from __future__ import annotations

import os
import platform
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from shoal.run.directory import MASKED, versions

if TYPE_CHECKING:
    from shoal.run.directory import RunDirectory
    from shoal.run.progress import Progress
    from shoal.run.run import Run

GOING = ("running", "paused")
"""States of a run whose process is there."""
SAME_S = 1.0
"""Seconds by which two readings of a process's start may differ."""


def status_of(run: Run, steps: int, progress: Progress) -> dict[str, Any]:
    """Where a run stands after `steps` environment steps."""
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
        "seconds": progress.elapsed_before + run.meter.elapsed(),
        "stop_reason": run.stop_reason,
        **process_here(),
        "usage": run.usage.now(run.meter.halt.stood_s),
        "versions": versions(),
    }
    if s.stop_at is not None and isfinite(s.stop_at):
        status["threshold"] = s.stop_at
    if progress.masked:
        status[MASKED] = True
    if run.memory.data_sha256:
        status["data_sha256"] = run.memory.data_sha256
    if run.guard is not None and run.guard.notes.count:
        status["interventions"] = run.guard.notes.count
    if run.selection.kept:
        status["kept"] = run.selection.kept
    if s.began_with:
        status["began_with"] = s.began_with
    return status


def is_running(run: RunDirectory) -> bool:
    """Whether the process that wrote the run's status trains it still; a later process with its number does not.

    Statuses of earlier versions do not say when their process started: it is one from before the status was written,
    and not the system's first.
    """
    status = run.read_status()
    pid, started = status.get("pid"), status.get("process_started")
    if status.get("state") not in GOING or pid is None:
        return False
    if started is not None:
        return is_there(pid, started)
    return pid != 1 and is_there(pid, None, by=run.status.stat().st_mtime)


def process_here() -> dict[str, Any]:
    """This process, as files of a run name it: another one with its number began at another time."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
    }


def is_there(pid: int, started: float | None, *, by: float = 0.0) -> bool:
    """Whether the process of a number that `started` then (where that is not known, before `by`) is there still."""
    if not 0 < pid < 2**31:
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        created = process.create_time()
    except psutil.Error:
        return False
    if started is None:
        return created <= by + SAME_S
    return abs(created - started) <= SAME_S
