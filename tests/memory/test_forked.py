"""A forked child that writes memory: its errors, its end, and what a fork does not protect."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from shoal import _native
from shoal.memory.forked import Child, SharedMemory, start

LARGE = np.zeros(96 << 20, np.uint8)
"""Written in tens of milliseconds: a signal comes before its end."""


def begin(path: Path, data: np.ndarray) -> Child:
    """A child that writes `data`."""
    child = start({path: [data]})
    assert child is not None
    return child


def test_files_hold_what_the_arrays_held(tmp_path: Path) -> None:
    """Several files of several arrays, empty ones too; changes after the call do not arrive."""
    first, second = np.arange(20_000_000, dtype=np.uint8), np.full(5, 7, np.uint8)
    begun = start({tmp_path / "a": [first, second], tmp_path / "ü": [second[:0]], tmp_path / "c": [second]})
    expected = first.tobytes() + second.tobytes()
    first[:] = 0
    second[:] = 0
    assert begun is not None
    begun.wait(20)
    begun.wait(20)
    begun.kill()
    assert (tmp_path / "a").read_bytes() == expected
    assert (tmp_path / "ü").read_bytes() == b""
    assert (tmp_path / "c").read_bytes() == b"\7\7\7\7\7"


def test_arrays_that_share_memory(tmp_path: Path) -> None:
    """Tied weights and overlapping views are written whole each time, though the child gives back written pages."""
    data = np.random.default_rng(0).integers(0, 256, 3 << 20, np.uint8)
    files = {tmp_path / "a": [data, data[:0], data], tmp_path / "b": [data[1 << 20 :], data[: 2 << 20]]}
    begun = start(files)
    assert begun is not None
    begun.wait(20)
    for path, arrays in files.items():
        assert path.read_bytes() == b"".join(array.tobytes() for array in arrays)


def test_errors_of_the_child_arrive(tmp_path: Path) -> None:
    """A folder that is not there, and a device that is full, as OSError with their numbers."""
    with pytest.raises(FileNotFoundError):
        begin(tmp_path / "missing" / "x", LARGE[:9]).wait(20)
    child = start({tmp_path / "x": [LARGE[:9]], Path("/dev/full"): [LARGE[:9]]})
    assert child is not None
    with pytest.raises(OSError, match="No space left") as caught:
        child.wait(20)
    assert caught.value.errno == errno.ENOSPC


def test_ctrl_c_leaves_the_child_alone(tmp_path: Path) -> None:
    """Signals that a terminal sends to the group do not end it."""
    child = begin(tmp_path / "x", LARGE)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child.pid, number)
    child.wait(20)
    assert (tmp_path / "x").stat().st_size == len(LARGE)


def test_killed_child_is_said(tmp_path: Path) -> None:
    """SIGKILL, by the kernel's out-of-memory killer say, is an error that names it."""
    child = begin(tmp_path / "x", LARGE)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(OSError, match="killed by SIGKILL"):
        child.wait(20)


def test_child_that_hangs_is_ended(tmp_path: Path) -> None:
    """After the time-out it is gone."""
    child = begin(tmp_path / "x", LARGE)
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError, match=r"longer than 0\.05 s"):
        child.wait(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_no_descriptor_outlives_the_parent_in_the_child(tmp_path: Path) -> None:
    """The far end of a pipe closes with the parent's end, while the child still runs."""
    reader, writer = os.pipe()
    child = begin(tmp_path / "x", LARGE)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    child.wait(20)


ORPHAN = """
import os, sys
from pathlib import Path
import numpy as np
from shoal.memory.forked import start
child = start({Path(sys.argv[1]): [np.zeros(512 << 20, np.uint8)]})
print(child.pid, flush=True)
os._exit(0)
"""


def test_child_ends_with_its_parent(tmp_path: Path) -> None:
    """Half a GiB is under way when the parent ends: the child does not finish it."""
    site = ["-S"] if sys.flags.no_site else []
    command = [sys.executable, *site, "-c", ORPHAN, str(tmp_path / "x")]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    pid = int(out)
    for _ in range(1000):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the child lives on")
    assert not (tmp_path / "x").exists() or (tmp_path / "x").stat().st_size < 512 << 20


def test_where_fork_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for another process all is written before the call returns."""

    def refuse(files: object) -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(_native, "fork_writer", refuse)
    data = np.arange(200, dtype=np.uint8)
    assert start({tmp_path / "x": [data, data[:3]], tmp_path / "y": []}) is None
    assert (tmp_path / "x").read_bytes() == bytes([*range(200), 0, 1, 2])
    assert (tmp_path / "y").read_bytes() == b""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what is mapped")
def test_shared_memory_is_known() -> None:
    """A mapping that processes share is found at both of its ends, and nothing beside it."""
    own = np.zeros(1000)
    with mmap.mmap(-1, 1 << 16) as block:
        there = np.frombuffer(block, np.uint8)
        shared = SharedMemory()
        assert shared.holds(there)
        assert shared.holds(there[:1])
        assert shared.holds(there[-1:])
        assert not shared.holds(own)
        del there


def test_shared_memory_is_unknown_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is known of the memory map, all memory counts as shared."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert SharedMemory().holds(np.zeros(3))


def test_refuses_other_arrays(tmp_path: Path) -> None:
    """Arrays of bytes that are contiguous, and nothing else, reach native code."""
    wrong: list[tuple[Any, str]] = [(np.zeros(4), "uint8"), (np.zeros(8, np.uint8)[::2], "contiguous")]
    for array, told in wrong:
        with pytest.raises(ValueError, match=told):
            start({tmp_path / "x": [array]})
