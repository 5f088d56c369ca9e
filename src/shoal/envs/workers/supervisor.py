"""The supervisor of a worker: its parent process, which ends whatever the worker's environments started with it.

Only what Python itself has is imported here: the process forks before it grows.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PID_BYTES = 16
"""The worker's process id stands in so many bytes at the start of the file for its stack."""
CLEAN_S = 2.0
"""How long it tries to end what a worker left behind."""
HEARD = {signal.SIGCHLD, signal.SIGTERM}
"""What a process that waits for another one waits for; blocked before, so that none is lost."""


def main(given: dict[str, Any]) -> None:
    """Forks the worker and stays until it and all that it started are gone; then ends as the worker ended.

    SIGTERM, also from the kernel when the process that started this one is gone, ends them at once.
    """
    begin(given["parent"])
    own = os.getpid()
    worker = os.fork()
    if not worker:
        _work(given, own)
        return
    os.write(given["stack"], b"%-*d" % (PID_BYTES, worker))
    for name in ("pipe", "block", "stack"):
        os.close(given[name])
    end_as(wait_for(worker))


def begin(parent: int) -> None:
    """Makes this process one that ends what it starts, and ends with its parent; `parent`: its process id."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for heard in HEARD:  # a parent may ignore them, and what is ignored is never heard
        signal.signal(heard, signal.SIG_DFL)
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a process leaves behind comes here
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def _work(given: dict[str, Any], supervisor: int) -> None:
    """The worker itself, in a process group of its own: what it sends to its group stays below its supervisor."""
    os.setpgid(0, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
    faulthandler.register(signal.SIGUSR1, file=given["stack"], all_threads=True)
    import_module(given["work"]).main(given)


def wait_for(worker: int) -> int:
    """Waits for the worker, or for the word to end it, and ends whatever there is then; the worker's status."""
    statuses: dict[int, int] = {}
    while worker not in statuses and signal.sigwait(HEARD) != signal.SIGTERM:
        _reap(statuses)
    deadline = time.monotonic() + CLEAN_S
    while _reap(statuses) and time.monotonic() < deadline:
        for pid in _children():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, 0.01)
    return statuses.get(worker, signal.SIGKILL)


def _reap(statuses: dict[int, int]) -> bool:
    """Takes the statuses of those that have ended; whether there are others."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return True
            statuses[pid] = status
    return False


def _children() -> list[int]:
    own = os.getpid()
    with suppress(OSError):
        listed = Path(f"/proc/self/task/{own}/children").read_text(encoding="ascii")
        return [int(pid) for pid in listed.split()]
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            words = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")
            if int(words[2].split()[1]) == own:
                found.append(int(stat.parent.name))
    return found


def end_as(status: int) -> None:
    """Ends as the worker ended, for the parent to see."""
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.kill(os.getpid(), number)
    os._exit(1)


def prctl(option: int, value: int) -> None:
    """One of the operations on this process that Linux has; nothing elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)
