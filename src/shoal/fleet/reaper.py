"""Ends what a fleet started: by its learner at the end, and beside it where that was killed.

Run as a program it waits for the learner's process to end. Everything that the fleet started has the fleet's name in
its environment, however it was started and whoever its parent is now.
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
LOOK_S = 0.1
MOST_S = 15.0
"""Ray may start another process while these are ended."""


def marked(fleet: str) -> list[psutil.Process]:
    """The living processes that a fleet started."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(MARK) == fleet and process.pid != os.getpid():
                found.append(process)
    return found


def end(fleet: str, folder: str, *, patience_s: float = PATIENCE_S) -> None:
    """Waits until nothing of a fleet runs, kills what still does after `patience_s`, removes its folder."""
    begun = time.monotonic()
    while found := marked(fleet):
        waited_s = time.monotonic() - begun
        if waited_s > patience_s:
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
        if waited_s > patience_s + MOST_S:
            break  # in the kernel, where nothing ends it
        time.sleep(LOOK_S)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Arguments: the learner's process, the fleet's name, its folder, and its record."""
    learner, fleet, folder, record = sys.argv[1:]
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(learner)).wait()
    end(fleet, folder)
    with suppress(OSError):
        os.unlink(record)


if __name__ == "__main__":
    main()
