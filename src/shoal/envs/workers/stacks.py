"""Where another process is at this moment, for a message about one that says nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import time

STACK_S = 0.5


def stack_of(pid: int, file: int) -> str:
    """The Python stack of a process, or that it is stopped; `file`: the descriptor that it writes its stack to."""
    with contextlib.suppress(OSError, IndexError):
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            if stat.read().rpartition(")")[2].split()[0] in "Tt":
                return "; it is stopped (SIGSTOP, or a debugger)"
        before = os.fstat(file).st_size
        if not before or not _shows_stack(pid, file):
            return "; it had not begun"
        os.kill(pid, signal.SIGUSR1)
        end, seen = time.monotonic() + STACK_S, before
        while time.monotonic() < end:
            time.sleep(0.02)
            now = os.fstat(file).st_size
            if now == seen > before:
                break
            seen = now
        text = os.pread(file, seen - before, before).decode(errors="replace").rstrip()
        if text:
            return f"; its stack:\n{text}"
    return "; it did not show its stack"


def _shows_stack(pid: int, file: int) -> bool:
    """Whether the process's descriptor for its stack is still that."""
    with contextlib.suppress(OSError):
        return "shoal-stack" in os.readlink(f"/proc/{pid}/fd/{file}")
    return False
