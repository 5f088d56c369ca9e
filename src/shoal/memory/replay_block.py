"""The block of a replay memory: what its records hold, and where its bytes lie."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import _native
from shoal.envs.masks import MaskReader
from shoal.memory.slab import kept_actions
from shoal.types import ALIGNMENT, ConfigError, Layout, check_room
from shoal.types.room import GIB

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.types import Spec

HEADER_BYTES = 64
ROW_BYTES = 64
"""What stands before the slots: a header, and the counts of each row."""
LESS = "set capacity to less"
NO_STATE = Layout(())
"""Of a policy without a memory."""


@dataclass(frozen=True, slots=True)
class RecordForm:
    """What a record of a row holds."""

    obs: Layout
    action: Layout
    options: int
    """Of the action mask; 0 where actions are not masked."""
    frames: int = 1
    """Observations are stacks of so many, of which a record holds the newest."""
    state: Layout = NO_STATE
    """Of the recurrent state before the step; it lies behind the action."""

    @classmethod
    def of(cls, spec: Spec, state: Layout = NO_STATE) -> RecordForm:
        """What is kept of a row's steps, with the recurrent state before each where it has a layout."""
        options = MaskReader(spec).size if spec.masked else 0
        frames = spec.frame_stack
        action = kept_actions(spec.action)
        return cls(spec.observation, action, options, frames, state)

    @property
    def sizes(self) -> tuple[list[int], list[int], int]:
        """Bytes of the leaves of an observation (of one frame), of an action with the state, and of a mask."""
        obs = [leaf.nbytes(()) // self.frames for leaf in self.obs.leaves]
        beside = [*self.action.leaves, *self.state.leaves]
        return obs, [leaf.nbytes(()) for leaf in beside], self.options

    def nbytes(self, num_rows: int, slots: int) -> int:
        """Bytes of a memory of so many records for each of so many rows."""
        return _native.ReplayRings.bytes(num_rows, slots, *self.sizes)

    def __str__(self) -> str:
        """The form in words; two memories of equal words hold equal records."""
        obs, action = _words(self.obs), _words(self.action)
        stacks = f"; stacks of {self.frames}" if self.frames > 1 else ""
        state = f"; state {_words(self.state)}" if self.state.leaves else ""
        return (
            f"observation {obs}; action {action}; {self.options} options{stacks}{state}"
        )

    @property
    def contents(self) -> int:
        """A hash of the words."""
        return int.from_bytes(sha256(str(self).encode()).digest()[:8], "little")


def _words(layout: Layout) -> str:
    return ", ".join(
        f"{leaf.name}{leaf.dtype.str}{list(leaf.shape)}" for leaf in layout.leaves
    )


def on_heap(nbytes: int, what: str) -> NDArray[np.uint8]:
    """Zeroed bytes of this process; ConfigError where it may not take so many."""
    check_room(nbytes, what, LESS)
    memory = np.zeros(nbytes + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + nbytes]


def shared(fd: int, nbytes: int, what: str) -> NDArray[np.uint8]:
    """The memory behind a descriptor, which gets its bytes where it has none yet.

    Raises:
        ConfigError: there is not so much, or it has another size.
    """
    if os.fstat(fd).st_size == 0:
        check_room(nbytes, what, LESS)
    return _map(fd, nbytes, what, "the shared memory")


def in_file(path: Path, nbytes: int, what: str) -> NDArray[np.uint8]:
    """The bytes of a file, which is made where it is missing.

    Raises:
        ConfigError: the disk has no room for it, or it has another size.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if nbytes > free and not (path.exists() and path.stat().st_size):
        raise ConfigError(
            f"{what} need a file of {nbytes / GIB:,.1f} GiB, and the disk of {path} has {free / GIB:,.1f} GiB; {LESS}"
        )
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        return _map(fd, nbytes, what, path)
    finally:
        os.close(fd)


def _map(fd: int, nbytes: int, what: str, place: object) -> NDArray[np.uint8]:
    size = os.fstat(fd).st_size
    if size == 0:
        _reserve(fd, nbytes, what)
    elif size != nbytes:
        raise ConfigError(
            f"{place} has {size:,} bytes, and {what} need {nbytes:,}: it is of other settings, or was cut off; "
            "use the settings that it was made with, or another one"
        )
    return _native.map_shared(fd, nbytes)


def _reserve(fd: int, nbytes: int, what: str) -> None:
    """Gives a file its bytes now, so that no later write can fail."""
    try:
        if sys.platform == "darwin":  # which has no other way
            os.ftruncate(fd, nbytes)
        else:
            os.posix_fallocate(fd, 0, nbytes)
    except OSError as error:
        os.ftruncate(fd, 0)
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise
        raise ConfigError(
            f"{what} need {nbytes / GIB:,.1f} GiB, which are not there ({error.strerror}); {LESS}"
        ) from error


def view_words(block: NDArray[np.uint8]) -> NDArray[Any]:
    """The block as words of 8 bytes."""
    return block.view(np.uint64)
