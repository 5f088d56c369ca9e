"""Usage: what a run has taken of its machine so far, in seconds of the wall clock and of processors."""

from __future__ import annotations

import platform
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from shoal.run.status import GOING
from shoal.stream.meter import cores
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.run.directory import RunDirectory

KEY = "usage"
"""What run.json calls it."""


def processor_seconds() -> float:
    """Of this process and of all that it started, those that are over too, in user's and system's code."""
    own = psutil.Process()
    spent_s = _spent(own)
    for child in own.children(recursive=True):
        with suppress(psutil.Error):  # it has just ended, and counts with its parent
            spent_s += _spent(child)
    return spent_s


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    own = times.user + times.system
    return float(own + times.children_user + times.children_system)


@cache
def processor_name() -> str:
    """What the machine calls its processor; its architecture where it does not say."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()[:120]
    return platform.processor() or platform.machine()


class Usage:
    """Counts from the moment that it is made; a run that is resumed goes on from what it had taken before."""

    def __init__(self, directory: RunDirectory | None) -> None:
        """`directory`: of the run, whose status says what it has taken."""
        self._before = taken_before(directory)
        self._begun_s, self._spent_s = time.monotonic(), processor_seconds()

    @property
    def wall_s(self) -> float:
        """Seconds for which the machine was held so far."""
        return self._before["wall_s"] + time.monotonic() - self._begun_s

    def now(self, stood_s: float) -> dict[str, Any]:
        """What the status says of it; `stood_s`: seconds in which the run stood still, since it began or went on.

        The machine was held for `wall_s`, pauses and evaluations included; `cores` are those that it could use.
        """
        before = self._before
        spent_s = max(0.0, processor_seconds() - self._spent_s)
        return {
            "wall_s": self.wall_s,
            "processor_s": before["processor_s"] + spent_s,
            "paused_s": before["paused_s"] + stood_s,
            "cores": cores(),
            "processor": processor_name(),
        }


def taken_before(directory: RunDirectory | None) -> dict[str, float]:
    """What a run had taken when it was last heard of."""
    nothing = {"wall_s": 0.0, "processor_s": 0.0, "paused_s": 0.0}
    if directory is None:
        return nothing
    try:
        status = directory.read_status()
    except ConfigError:
        return nothing
    found = usage_of(status)
    if found is None:
        return nothing
    found["wall_s"] += unheard_s(directory, status)
    return {name: found[name] for name in nothing}


def usage_of(status: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a status says of it, checked; None where it says nothing, as those of earlier versions."""
    told = status.get(KEY)
    if not isinstance(told, dict):
        return None
    found: dict[str, Any] = {"processor": str(told.get("processor", ""))[:120]}
    for name in ("wall_s", "processor_s", "paused_s", "cores"):
        value = told.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not 0 <= value < 1e12:
            return None
        found[name] = value
    return found


def unheard_s(run: RunDirectory, status: Mapping[str, Any]) -> float:
    """Seconds that a run whose process ended without a word went on after its last status: until its last metrics."""
    if status.get("state") not in GOING:
        return 0.0
    try:
        later_s = run.metrics.lstat().st_mtime - run.status.lstat().st_mtime
    except OSError:
        return 0.0
    return max(0.0, later_s)
