"""What every worker shares: cores, clock, versions, and the one JSON object on its last line.

A worker runs inside a peer's virtual environment, so this file needs nothing but Python.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def keep_to_cores(cores: int) -> int:
    """Restrict this process to the first `cores` of its CPUs, where the system can; return how many."""
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    os.sched_setaffinity(0, set(allowed))
    return len(allowed)


def seed_list(text: str) -> list[int]:
    """Read seeds written as `0,1,2`."""
    return [int(part) for part in text.split(",")]


def time_steps(step: Callable[[], int], *, seconds: float, warmup_s: float = 0.3) -> dict[str, Any]:
    """Call `step`, which returns how many rows it stepped, for about `seconds` after a warm-up.

    The clock is read about 500 times a second, so that it costs nothing beside the steps. The rate
    is the whole count over the whole time; the median of ten parts shows whether it was disturbed.
    """
    calls = 0
    until = time.perf_counter() + warmup_s
    while time.perf_counter() < until:
        step()
        calls += 1
    chunk = max(1, int(calls / warmup_s / 500))
    parts: list[float] = []
    total, elapsed = 0, 0.0
    while elapsed < seconds:
        count, start = 0, time.perf_counter()
        spent = 0.0
        while spent < seconds / 10:
            for _ in range(chunk):
                count += step()
            spent = time.perf_counter() - start
        parts.append(count / spent)
        total, elapsed = total + count, elapsed + spent
    return {"steps": total, "seconds": elapsed, "sps": total / elapsed, "sps_median": statistics.median(parts)}


def count_steps(step: Callable[[], int], seconds: float) -> tuple[int, float]:
    """Call `step`, which returns how many rows it stepped, for about `seconds`; return the rows and the seconds.

    Two calls come first and do not count: after a pause the caches hold something else.
    """
    step()
    step()
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        count += step()
    return count, spent


def answer_slices(step: Callable[[], int]) -> None:
    """Answer each line of the input, a number of seconds, with a line of what `count_steps` counted in them."""
    for line in sys.stdin:
        count, spent = count_steps(step, float(line))
        print(json.dumps([count, spent]), flush=True)


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package, and Python's."""
    found = {"python": sys.version.split()[0]}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def emit(result: dict[str, Any], settings: dict[str, Any], *packages: str) -> None:
    """Print the worker's result as the last line of its output."""
    print(json.dumps(result | {"settings": settings, "versions": versions(*packages)}), flush=True)
