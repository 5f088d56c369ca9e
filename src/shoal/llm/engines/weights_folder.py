"""Weights on their way to an engine: folders in memory, or where both can see them, written in turn."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.llm.model_folder import save_model

try:
    import fcntl
except ImportError:  # a system without flock
    fcntl = None

if TYPE_CHECKING:
    from collections.abc import Generator

    from shoal.llm.model import LanguageModel

MEMORY = Path("/dev/shm")
"""Where files are memory, on Linux."""
BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Says which kernel this is: locks that are seen here are those of its processes, in whatever container."""
PREFIX = "shoal-weights-"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class WeightsFolder:
    """Two folders below one of its own: one is written while the other may still be read.

    Its name says the kernel, the process and when that began. The process holds a lock on it: one that is killed lets
    it go, and whoever makes the next folder there deletes those of this user that nobody holds.
    """

    def __init__(self, parent: str = "") -> None:
        """In `parent`; by default in memory, where there is such a place, else where temporary files are."""
        where = Path(parent) if parent else in_memory()
        delete_abandoned(where)
        self.path, self._lock = _made(where)
        self._written = 0

    def write(self, model: LanguageModel) -> Path:
        """A folder with the model as it is now, a LoRA merged into it, as transformers reads it."""
        folder = self.path / str(self._written % 2)
        save_model(model, folder)
        self._written += 1
        return folder

    def close(self) -> None:
        """Deletes them."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def in_memory() -> Path:
    """Where weights are put by default."""
    return MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())


def delete_abandoned(where: Path | None = None) -> list[str]:
    """Deletes folders of weights in `where`, by default in memory, whose process is gone; returns their names.

    Only this user's folders, only those that this kernel's processes made, as another machine's locks are not seen
    here, and only where the lock can be taken: it is what says that nobody is left, as the numbers of processes are
    others' in another container. Links are not followed.
    """
    boot, gone = _boot(), list[str]()
    if fcntl is None or not boot:
        return gone
    ours = re.compile(rf"{PREFIX}{boot}-\d+-\d+-\w+")
    with suppress(OSError), _opened(where or in_memory()) as parent:
        for name in filter(ours.fullmatch, os.listdir(parent)):
            # Taken by another, deleted meanwhile, a link or a file: none of them is ours to delete.
            with suppress(OSError), _opened(name, parent) as folder:
                if os.fstat(folder).st_uid != os.geteuid():
                    continue
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(name, dir_fd=parent)
                gone.append(name)
    return gone


def _made(where: Path) -> tuple[Path, int | None]:
    """A new folder in `where`, and the lock on it; None where folders cannot be locked."""
    prefix = f"{PREFIX}{_boot() or 'none'}-{os.getpid()}-{_began()}-"
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
        lock = _locked(path)
        if path.is_dir():
            return path, lock
        # Whoever came between making and locking took it for one that was left.
        if lock is not None:
            os.close(lock)


def _locked(path: Path) -> int | None:
    """A folder that is open and locked; None where that cannot be, and where it is gone."""
    if fcntl is None:
        return None
    try:
        lock = os.open(path, FOLDER)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:  # a file system without locks, where nobody else takes one either
        os.close(lock)
        return None
    return lock


@contextmanager
def _opened(path: Path | str, parent: int | None = None) -> Generator[int]:
    """A folder, not a link to one."""
    found = os.open(path, FOLDER, dir_fd=parent)
    try:
        yield found
    finally:
        os.close(found)


def _boot() -> str:
    """Of the kernel's start, eight characters; none where it does not say."""
    try:
        return BOOT.read_text("ascii").strip()[:8]
    except OSError:
        return ""


def _began() -> str:
    """When this process began, in the kernel's ticks since its start, 0 where it does not say."""
    try:
        said = Path("/proc/self/stat").read_text("utf-8", "replace")
    except OSError:
        return "0"
    return said.rpartition(")")[2].split()[19]
