"""Room: the memory that this process may still take, asked before something large is made."""

from __future__ import annotations

from pathlib import Path

import psutil

GROUPS = (
    ("memory.max", "memory.current", "memory.stat"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
    ),
)
"""Where a container's limit and use stand below /sys/fs/cgroup, in its second version and in its first."""


def free_bytes(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that are free: of the machine's memory, and of the container's limit where there is one.

    What only holds files that can be read again counts as free.
    """
    free = psutil.virtual_memory().available
    for limit, used, stat in GROUPS:
        try:
            left = int((root / limit).read_text()) - int((root / used).read_text())
            left += _cached((root / stat).read_text())
        except (OSError, ValueError):  # no such group, or no limit ("max")
            continue
        free = min(free, max(0, left))
    return free


def _cached(stat: str) -> int:
    """The bytes of files that a container's memory holds."""
    lines = [line.split() for line in stat.splitlines()]
    kept = ("inactive_file", "active_file")
    return sum(int(value) for name, value in lines if name in kept)
