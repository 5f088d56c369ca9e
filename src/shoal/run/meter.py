"""Where the time of a run goes: seconds by activity, and the use of the processors."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

ACTIVITIES = ("environment", "acting", "learning", "waiting", "transfer")


class Meter:
    """Seconds spent in each activity since the start and since the last reading."""

    def __init__(self) -> None:
        """Starts the clock."""
        self.seconds = dict.fromkeys(ACTIVITIES, 0.0)
        self.started = time.perf_counter()
        self._process = psutil.Process()
        self._process.cpu_percent()

    @contextmanager
    def measure(self, activity: str) -> Iterator[None]:
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
