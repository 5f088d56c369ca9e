"""The machine of a run: what it is, and its limit in that run."""

from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shoal import _native

PACKAGES = ("shoal-rl", "torch", "numpy", "gymnasium")
TIMINGS = 25


def describe() -> dict[str, str | int]:
    """Kind of CPU, cores, system, and the load of others at the start."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.2f}",
    }


def versions() -> dict[str, str]:
    """Versions of what takes part."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def fma_gflops(num_threads: int = 1) -> float:
    """The limit of some cores at the same time: a median of timings of pure multiply-adds on each, added; GFLOP/s."""
    with ThreadPoolExecutor(num_threads) as threads:
        return sum(threads.map(_native.fma_peak, [TIMINGS] * num_threads)) / 1e9


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    known = {name.strip(): value.strip() for name, value in fields.items()}
    name, family, model = (known.get(key, "?") for key in ("model name", "cpu family", "model"))
    return f"{name}, family {family} model {model}"
