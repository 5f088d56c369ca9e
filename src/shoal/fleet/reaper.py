"""Ends what a fleet started: by its learner at the end, and beside it where that was killed.

Run as a program it waits for the learner's process to end. What the fleet started is known by marks that its children
inherit, whoever their parent is now.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import suppress

import psutil

MARK = "SHOAL_FLEET"
"""The variable with the fleet's name."""
PATIENCE_S = 3.0
"""Ray's own processes have so long to end by themselves when their learner was killed."""
LOOK_S = 0.2
MOST_S = 15.0
"""Ray may start another process while these are ended."""


def started(fleet: str, folder: str) -> list[psutil.Process]:
    """The living processes that a fleet started: its name is in their environment, or their logs in its folder.

    Neither is enough: some of Ray's write their title over their environment.
    """
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if _writes_into(process, folder) or process.environ().get(MARK) == fleet:
                found.append(process)
    return found


def _writes_into(process: psutil.Process, folder: str) -> bool:
    """Whether it has a file in the folder open, such as its log, also one that is deleted by now."""
    opened = f"/proc/{process.pid}/fd"
    if not os.path.isdir("/proc/self/fd"):
        return any(file.path.startswith(folder) for file in process.open_files())
    for number in os.listdir(opened):
        with suppress(OSError):
            if os.readlink(f"{opened}/{number}").startswith(folder):
                return True
    return False


def end(fleet: str, folder: str, *, patience_s: float = PATIENCE_S) -> None:
    """Waits until nothing of a fleet runs, kills what still does after `patience_s`, removes its folder."""
    begun = time.monotonic()
    while found := started(fleet, folder):
        waited_s = time.monotonic() - begun
        if waited_s > patience_s:
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
        if waited_s > patience_s + MOST_S:
            break  # in the kernel, where nothing ends it
        time.sleep(LOOK_S)
    shutil.rmtree(folder, ignore_errors=True)


def lives(pid: int) -> bool:
    """Whether a process is there, and not only for its parent to hear of its end."""
    with suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def main() -> None:
    """Arguments: the learner's process, which has started this one, the fleet's name, its folder, and its record."""
    learner, fleet, folder, record = sys.argv[1:]
    while os.getppid() == int(learner) and lives(int(learner)):
        time.sleep(LOOK_S)
    end(fleet, folder)
    with suppress(OSError):
        os.unlink(record)


if __name__ == "__main__":
    main()
