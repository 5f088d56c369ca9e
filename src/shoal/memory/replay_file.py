"""A replay memory in a file of its own: what a checkpoint says of it, and how it is found again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from shoal.memory.replay import ReplayMemory


def check_same(file: Path | None, saved: str | None) -> None:
    """ConfigError where a checkpoint refers to a file, and the memory has none or another one."""
    name = None if file is None else file.name
    if saved is None or saved == name:
        return
    if name is None:
        raise ConfigError(
            f"the checkpoint's replay memory is in the file {saved}; set replay.file to true"
        )
    raise ConfigError(
        f"the checkpoint's replay memory is in the file {saved}, this run's in {name}"
    )


def return_to(memory: ReplayMemory, heads: NDArray[np.uint64]) -> None:
    """Makes the rows end where they ended at a checkpoint; `memory.gone` says what was overwritten since.

    The slots of what is gone, and of what came later, count as empty from here on.

    Raises:
        ConfigError: the file is not the checkpoint's, or damaged; it is as it was.
    """
    if (memory.heads[:, 0] < heads[:, 0]).any():
        row = int(np.flatnonzero(memory.heads[:, 0] < heads[:, 0])[0])
        raise ConfigError(
            f"{memory.file} is another one than the checkpoint's, or damaged: it ends at record "
            f"{memory.heads[row, 0]:,} of row {row}, the checkpoint at {heads[row, 0]:,}"
        )
    gone = np.zeros((memory.num_rows, memory.slots), np.bool_)
    for row, head in enumerate(heads[:, 0].tolist()):
        first = max(0, head - memory.slots)
        index = np.arange(first, head)
        wanted = 2 * index.astype(np.uint64) + np.uint64(2)
        slot = index % memory.slots
        found = memory.ring[row, slot, 0]
        other = found != wanted
        damaged = other & (found != 0) & (found < wanted)
        if damaged.any():
            at = int(index[damaged][0])
            raise ConfigError(
                f"{memory.file} is damaged: in the place of record {at:,} of row {row} is an older one; "
                "delete it and begin a new run"
            )
        gone[row, slot[other]] = True
    # First of all the heads: a process that is killed here leaves records that nobody reads.
    memory.heads[:] = heads
    for row in range(memory.num_rows):
        held = np.zeros(memory.slots, np.bool_)
        head = int(heads[row, 0])
        held[np.arange(max(0, head - memory.slots), head) % memory.slots] = True
        memory.ring[row, gone[row] | ~held, 0] = 0
    memory.gone = gone
