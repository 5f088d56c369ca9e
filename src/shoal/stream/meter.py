"""Where the time of a run goes: seconds by activity, and the use of the processors."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

ACTIVITIES = ("environment", "acting", "learning", "waiting", "transfer")


class Meter:
    """Seconds spent in each activity since the start and since the last reading."""

    def __init__(self, note: Callable[[str, float], None] | None = None) -> None:
        """Starts the clock; `note` gets numbers of what happens beside: of actors, how long they wait."""
        self.seconds: dict[str, float] = dict.fromkeys(ACTIVITIES, 0.0)
        self.started = time.perf_counter()
        self.note = note or _unheard
        self._process = psutil.Process()
        self._process.cpu_percent()

    def start(self) -> None:
        """Starts the clock again: what came before was preparation."""
        self.started = time.perf_counter()

    @contextmanager
    def measure(self, activity: str) -> Generator[None]:
        """Adds the time of the block to `activity`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] += time.perf_counter() - begun

    def add(self, activity: str, seconds: float) -> None:
        """Adds `seconds` to `activity`."""
        self.seconds[activity] += seconds

    def elapsed(self) -> float:
        """Seconds since the meter was made."""
        return time.perf_counter() - self.started

    def cpu_cores(self) -> float:
        """Cores that this process kept busy since the last call."""
        return self._process.cpu_percent() / 100


def _unheard(name: str, value: float) -> None:
    """For a meter that nobody reads."""


def cores() -> int:
    """Cores that this process may use."""
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )


def gpu_use(device: str) -> str:
    """The use of a CUDA device in words: per cent of the time and memory; only memory where NVML is missing."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    memory = f"{(total - free) / 2**30:.1f} of {total / 2**30:.1f} GiB"
    try:
        return f"{torch.cuda.utilization(device)} %, {memory}"
    except Exception:  # NVML's own errors derive from Exception alone
        return f"{memory} (no NVML: pip install nvidia-ml-py shows the use)"
