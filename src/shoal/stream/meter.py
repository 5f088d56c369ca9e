"""Where the time of a run goes: seconds by activity, and the use of the processors."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

from shoal.stream.ending import Ending

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from shoal.stream.spans import Spans

ACTIVITIES = ("environment", "acting", "learning", "waiting", "transfer")


class Meter:
    """Seconds spent in each activity since the start and since the last reading."""

    def __init__(self, note: Callable[[str, float], None] | None = None) -> None:
        """Starts the clock; `note` gets numbers of what happens beside: of actors, how long they wait."""
        self.seconds: dict[str, float] = dict.fromkeys(ACTIVITIES, 0.0)
        self.ending = Ending()
        """Whether whoever waits for rows is to wait any longer."""
        self.halt = self.ending.halt
        """Whether the run stands still; that time is none of training."""
        self.started = self.clock()
        self._heard = note or _unheard
        self._noted: dict[str, tuple[float, int]] = {}
        self.spans: Spans | None = None
        """When what was done, where a timeline is recorded."""
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._core_s, self._core_at_s = core_seconds(), time.perf_counter()

    def start(self) -> None:
        """Starts the clock again: what came before was preparation."""
        self.started = self.clock()

    def clock(self) -> float:
        """The time in seconds, which does not go on while the run stands still."""
        return self.halt.clock()

    def note(self, name: str, value: float) -> None:
        """Hands a number of what happens beside on, and keeps its mean."""
        total, count = self._noted.get(name, (0.0, 0))
        self._noted[name] = total + value, count + 1
        self._heard(name, value)

    def mean(self, name: str) -> float | None:
        """The mean of what was noted since the start; None where nothing was."""
        total, count = self._noted.get(name, (0.0, 0))
        return total / count if count else None

    @contextmanager
    def measure(self, activity: str) -> Generator[None]:
        """Adds the time of the block to `activity`."""
        begun, since = time.perf_counter(), self.clock()
        try:
            yield
        finally:
            ended = time.perf_counter()
            self.seconds[activity] += self.clock() - since
            if self.spans is not None:
                self.spans.add(activity, begun, ended)

    def add(self, activity: str, seconds: float, *, shown: bool = True) -> None:
        """Adds `seconds` that have just ended to `activity`; `shown`: on a timeline too."""
        self.seconds[activity] += seconds
        if shown and self.spans is not None:
            now = time.perf_counter()
            self.spans.add(activity, now - seconds, now)

    def add_shares(self, shares: Mapping[str, float], seconds: float) -> None:
        """Adds `seconds` that have just ended to activities that took turns; a timeline shows them side by side."""
        begun = time.perf_counter() - seconds
        for activity, share in shares.items():
            self.add(activity, share * seconds, shown=False)
            if self.spans is not None:
                self.spans.add(activity, begun, begun + share * seconds)
            begun += share * seconds

    @contextmanager
    def show(self, kind: str) -> Generator[None]:
        """The block on a timeline; its time is counted elsewhere, or is none of training."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            if self.spans is not None:
                self.spans.add(kind, begun, time.perf_counter())

    def elapsed(self) -> float:
        """Seconds since the clock was started, but for those in which the run stood still."""
        return self.clock() - self.started

    def cpu_cores(self) -> float:
        """Cores that this process kept busy since the last call."""
        return self._process.cpu_percent() / 100

    def core_shares(self) -> list[float]:
        """The share of the time since the last call in which each core was busy, whatever with."""
        before, since_s = self._core_s, self._core_at_s
        self._core_s, self._core_at_s = core_seconds(), time.perf_counter()
        elapsed_s = max(self._core_at_s - since_s, 1e-9)
        spent = [x - before.get(core, x) for core, x in self._core_s.items()]
        return [min(1.0, max(0.0, busy_s / elapsed_s)) for busy_s in spent]


def _unheard(name: str, value: float) -> None:
    """For a meter that nobody reads."""


def core_seconds() -> dict[int, float]:
    """Seconds since the machine started in which each core that this process may use was busy, whatever with."""
    every = psutil.cpu_times(percpu=True)
    allowed = range(len(every))
    if hasattr(os, "sched_getaffinity"):
        allowed = [core for core in allowed if core in os.sched_getaffinity(0)]
    return {core: _busy(every[core]) for core in allowed}


def _busy(times: Any) -> float:
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - guests)  # guests are counted as user too


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
