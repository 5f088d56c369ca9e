"""Room: how much memory this process may still take, and the refusal of what needs more.

Memory is promised before it is there, so that too much of it does not fail where it is asked for: the kernel kills the
process later, without a word. Only what Python itself has is imported here; the build asks too.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

GIB = 2**30


def free_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take: what the machine has free, and its control group's limits leave.

    Args:
        root: where /proc and /sys are.

    Returns:
        None where the system does not say, as on macOS.
    """
    left: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
            name, value = line.split()[:2]
            if name in ("MemAvailable:", "SwapFree:"):
                left.append(int(value) * 1024)
    if left:
        left = [sum(left)]
    with contextlib.suppress(OSError):
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        left += _left_in_groups(root / "sys/fs/cgroup", groups)
    return min(left, default=None)


def _left_in_groups(mount: Path, groups: list[str]) -> list[int]:
    """What the limits of the control groups leave, of versions 1 and 2, each group and all above it."""
    left: list[int] = []
    for line in groups:
        _, kinds, name = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        folder = mount / "memory" if kinds else mount
        files = ("memory.max", "memory.current")
        if kinds:
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        own = folder / name.lstrip("/")
        # In a container the group's name may be that outside of it: then the mount is the group.
        for place in (own, *own.parents):
            with contextlib.suppress(OSError, ValueError):
                limit = int((place / files[0]).read_text(encoding="ascii"))
                used = int((place / files[1]).read_text(encoding="ascii"))
                left.append(max(limit - used + _cached(place), 0))
            if place == folder:
                break
    return left


def _cached(group: Path) -> int:
    """Bytes of a group that hold files, which the kernel gives back when they are needed."""
    with contextlib.suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0
