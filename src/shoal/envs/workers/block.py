"""The block of memory that a parent and its workers share: their signals, and the arrays of all rows."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from shoal import _native
from shoal.envs.masks import MaskReader
from shoal.envs.outputs import FEWER, NUMBERS, Outputs, take
from shoal.envs.workers.pace import COLUMNS
from shoal.types import ConfigError, Layout, Leaf, check_room

if TYPE_CHECKING:
    from shoal.types import Bools, Floats, Spec, Tree


class Block:
    """Signals of `num_workers` workers and arrays [B, ...] in the memory behind a file descriptor.

    The memory has no name: it is gone with the last process that maps it.
    """

    def __init__(self, fd: int, spec: Spec, *, num_rows: int, num_workers: int) -> None:
        """Maps the memory; `reserve` must have been called once before."""
        signals = _native.Signals.bytes(num_workers)
        whole = size(spec, num_rows, num_workers)
        times = whole - _times_bytes(num_workers)
        memory = _native.map_shared(fd, whole)
        self.signals = _native.Signals(memory[:signals], num_workers)
        self.arrays: dict[str, Tree] = _layout(spec).view(
            memory[signals:times], num_rows
        )
        self.times: Floats = memory[times:].view(np.float64).reshape(-1, COLUMNS)
        """How long each worker took for its last steps [W, COLUMNS]."""
        self.action: Tree = self.arrays["action"]
        self.masks: Bools = self.arrays["action_mask"]
        self._spec = spec

    def outputs(self, rows: slice) -> Outputs:
        """The arrays of `rows` that a backend writes to; `add_masks` is for rows that turn out to have `masks`."""
        out = Outputs(self._spec, rows.stop - rows.start)
        for name, tree in take(self.arrays, rows).items():
            if name not in ("action", "action_mask"):
                setattr(out, name, tree)
        return out


def size(spec: Spec, num_rows: int, num_workers: int) -> int:
    """Bytes of the block."""
    arrays = _layout(spec).offsets((num_rows,))[1]
    return _native.Signals.bytes(num_workers) + arrays + _times_bytes(num_workers)


def _times_bytes(num_workers: int) -> int:
    """Bytes of the workers' times, which stand last."""
    return num_workers * COLUMNS * 8


def reserve(fd: int, spec: Spec, *, num_rows: int, num_workers: int) -> None:
    """Gives the block its memory now, so that no later write can fail; ConfigError where there is not enough."""
    nbytes = size(spec, num_rows, num_workers)
    what = f"{spec.env_id}: the shared arrays of {num_rows:,} rows"
    check_room(nbytes, what, FEWER)
    try:
        os.posix_fallocate(fd, 0, nbytes)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise
        raise ConfigError(
            f"{spec.env_id}: {num_rows} rows need {nbytes:,} bytes of shared memory, which this machine does not give "
            f"({error.strerror}); set num_envs to less than {num_rows}, or allow more memory"
        ) from error


def _layout(spec: Spec) -> Layout:
    """One tree of all arrays: the actions, and those of Outputs under their own names."""
    leaves = _below("action", spec.action)
    leaves += _below("obs", spec.observation)
    leaves += _below("final_obs", spec.observation)
    leaves += [Leaf((name,), np.dtype(kind), ()) for name, kind in NUMBERS.items()]
    options = (MaskReader(spec).size,)
    leaves.append(Leaf(("action_mask",), np.dtype(np.bool_), options))
    leaves += [Leaf(("info", key), np.dtype(np.float64), ()) for key in spec.info_keys]
    return Layout(tuple(leaves))


def _below(name: str, layout: Layout) -> list[Leaf]:
    """The leaves of a layout as they stand below a name."""
    return [replace(leaf, path=(name, *leaf.path)) for leaf in layout.leaves]
