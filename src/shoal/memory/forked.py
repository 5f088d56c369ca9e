"""Writes memory to files as it is now, from a forked child, while this process goes on changing it."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from shoal import _native

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import numpy as np
    from numpy.typing import NDArray

POLL_S = 0.002
"""Seconds between two looks at whether the child has ended."""


class Child:
    """A child that writes; whoever started it waits for it or ends it."""

    def __init__(self, pid: int) -> None:
        """Made by `start`."""
        self.pid = pid
        self._code: int | None = None

    def wait(self, timeout_s: float) -> None:
        """Returns when all is written.

        Where another part of the process has collected the child's exit status, this
        returns as well: compare the files' sizes.

        Raises:
            OSError: what the child's write failed with, or that it was killed.
            TimeoutError: it took longer; it is ended.
        """
        end = time.monotonic() + timeout_s
        while (code := self._exit_code()) is None:
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(
                    errno.ETIMEDOUT,
                    f"the child that writes took longer than {timeout_s:g} s",
                )
            time.sleep(POLL_S)
        if code < 0:
            name = signal.Signals(-code).name
            raise OSError(errno.EIO, f"the child that writes was killed by {name}")
        if code > 0:
            raise OSError(code, os.strerror(code))

    def kill(self) -> None:
        """Ends it; calling it again does nothing."""
        if self._exit_code() is None:
            os.kill(self.pid, signal.SIGKILL)
            while self._exit_code() is None:
                time.sleep(POLL_S)

    def _exit_code(self) -> int | None:
        """None while it runs; -signal where it was killed."""
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody waits for every child of the process
                self._code = 0
            else:
                self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


def start(files: Mapping[Path, Sequence[NDArray[np.uint8]]]) -> Child | None:
    """Begins to write what the arrays of bytes hold now, one after the other, into each new file.

    They may be changed as soon as this returns. Memory that processes share is not
    protected by the fork (`SharedMemory` tells which that is).

    Returns None where the system refuses to fork: then all was written here, before
    this returned.

    Raises:
        OSError: a write in this process failed.
    """
    images = [(os.fsencode(path), list(arrays)) for path, arrays in files.items()]
    try:
        return Child(_native.fork_writer(images))
    except OSError:  # no room for another process, or for the tables of its memory
        for path, arrays in files.items():
            with path.open("wb", buffering=0) as file:
                for array in arrays:
                    write_whole(file, array)
        return None


def write_whole(file: BinaryIO, data: NDArray[np.uint8]) -> None:
    """Writes all of it to an unbuffered file, which may take only a part at a time."""
    rest = data.data
    while rest:
        rest = rest[file.write(rest) :]


class SharedMemory:
    """The memory of this process that a fork leaves shared, as it is mapped now."""

    def __init__(self) -> None:
        """Reads the process's memory map; elsewhere than on Linux nothing is known."""
        self.known = sys.platform == "linux"
        self._begins: list[int] = []
        self._ends: list[int] = []
        if not self.known:
            return
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                span, permissions, *_ = line.split(maxsplit=2)
                if permissions[3] == "s":
                    begin, end = (int(number, 16) for number in span.split("-"))
                    self._begins.append(begin)
                    self._ends.append(end)

    def holds(self, array: NDArray[Any]) -> bool:
        """Whether a contiguous array lies in it, wholly or in part; True where nothing is known."""
        if not self.known:
            return True
        first = int(array.__array_interface__["data"][0])
        at = bisect_right(self._begins, first + array.nbytes - 1) - 1
        return at >= 0 and self._ends[at] > first
