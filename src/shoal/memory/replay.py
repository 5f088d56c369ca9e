"""The replay memory: what rows did, kept once in a ring for each row, and sampled as transitions of n steps."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import _native
from shoal.memory import replay_block
from shoal.memory.replay_block import (
    HEADER_BYTES,
    NO_STATE,
    ROW_BYTES,
    RecordForm,
    view_words,
)
from shoal.memory.replay_state import restore_into, state_of
from shoal.memory.replay_steps import WholeSteps
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from shoal.memory.replay_steps import StepArrays
    from shoal.memory.slab import Slab
    from shoal.types import Layout, Spec

LEAST_SLOTS = 4
MOST_ROWS = 2**24


class ReplayMemory:
    """What `num_rows` rows did last, each row in its own ring.

    A record is a step (observation, action, reward, how it ended, version, mask) or the
    final observation of an episode; the next observation of a step is the record that
    follows it. Of stacks of frames (`Spec.frame_stack`) a record holds the newest, and
    the records before it the others; where they are other ones, as at an episode's start,
    these get records of their own first. Each row may be written by one thread or process at a time; any number
    of them may read.
    """

    def __init__(
        self,
        spec: Spec,
        num_rows: int,
        *,
        capacity: int | None = None,
        capacity_bytes: int | None = None,
        fd: int | None = None,
        file: Path | None = None,
        state: Layout = NO_STATE,
    ) -> None:
        """An empty memory, or the one that is in `fd` or `file`.

        Args:
            spec: what rows observe and do.
            num_rows: B.
            capacity: records of all rows together; each row gets an equal share.
            capacity_bytes: instead of `capacity`.
            fd: of shared memory (`os.memfd_create`), for a memory of several processes;
                whoever comes first makes it.
            file: which the records are mapped to, instead of this process's memory; a
                checkpoint refers to it instead of copying it.
            state: of the recurrent state before each step, which a record holds too.

        Raises:
            ConfigError: it does not fit, or `fd` or `file` holds something else.
        """
        self.spec, self.num_rows, self.file = spec, num_rows, file
        self.form = RecordForm.of(spec, state)
        if not 1 <= num_rows <= MOST_ROWS:
            raise ConfigError(
                f"num_rows must be between 1 and {MOST_ROWS:,}, got {num_rows}"
            )
        self.slots = self._slots(capacity, capacity_bytes)
        """Records that each row's ring has room for."""
        self.block = self._make_block(fd, file)
        try:
            self.rings = _native.ReplayRings(
                self.block,
                num_rows,
                self.slots,
                *self.form.sizes,
                self.form.contents,
                self.form.frames,
            )
        except ValueError as error:
            place = file or "the shared memory"
            raise ConfigError(f"{place}: {error}; name another") from None
        words = view_words(self.block)
        head, counts = HEADER_BYTES // 8, ROW_BYTES // 8
        slots = head + num_rows * counts
        self.heads: NDArray[np.uint64] = words[head:slots].reshape(num_rows, counts)
        """Of each row, the numbers of its records and of its steps, and whether a step was left out since."""
        self.ring: NDArray[np.uint64] = words[slots:].reshape(num_rows, self.slots, -1)
        """Of each slot, its sequence number and the words of its record."""
        self.gone: NDArray[np.bool_] | None = None
        """Of each slot, whether its record was overwritten after the checkpoint that was restored."""
        self._check_heads(file or "the shared memory")

    @property
    def num_inserted(self) -> int:
        """Steps that were ever inserted."""
        return int(self.heads[:, 1].sum())

    def __len__(self) -> int:
        """Records that are held now, final observations among them."""
        return int(np.minimum(self.heads[:, 0], self.slots).sum())

    def insert(self, block: Slab | WholeSteps, *, first_row: int = 0) -> int:
        """Appends the valid steps of a slab [T, B] to the rings of rows `first_row` to `first_row` + B.

        Returns:
            How many steps there were.

        Raises:
            ValueError: a reward is not finite, or arrays do not fit; nothing is stored.
            RuntimeError: another thread is inserting steps of the same rows.
        """
        form = self.form
        return self.rings.insert(
            first_row,
            form.obs.flat(block.obs),
            form.action.flat(block.memorable) + form.state.flat(block.states),
            block.reward,
            block.terminated,
            block.truncated,
            block.valid,
            block.start,
            block.version,
            block.final_index,
            form.obs.flat(block.final_obs),
            block.action_mask,
            in_turns=block.in_turns,
        )

    def insert_steps(self, steps: StepArrays, *, first_row: int = 0) -> int:
        """Appends steps that come from elsewhere, as `insert` does.

        Raises:
            ValueError: an array has another shape or dtype, or holds NaN or infinity.
        """
        return self.insert(WholeSteps(self.form, steps), first_row=first_row)

    def clear(self) -> None:
        """Forgets all records."""
        if self.heads.any():
            self.heads[:] = 0
            self.ring[:, :, 0] = 0

    def state(self) -> dict[str, Any]:
        """All that `restore` needs; arrays are the memory's own, not copies."""
        return state_of(self)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Holds what the memory held; ConfigError where that is another memory's, or damaged."""
        restore_into(self, state)

    def _slots(self, capacity: int | None, capacity_bytes: int | None) -> int:
        if (capacity is None) == (capacity_bytes is None):
            raise ConfigError(
                "a replay memory takes either capacity (records) or capacity_bytes"
            )
        least = LEAST_SLOTS * self.form.frames
        if capacity is None:
            assert capacity_bytes is not None
            slot = self._nbytes(3) - self._nbytes(2)
            return max((capacity_bytes - self._nbytes(2)) // slot + 2, least)
        if capacity < 1:
            raise ConfigError(f"capacity must be at least 1, got {capacity}")
        return max(ceil(capacity / self.num_rows), least)

    def _nbytes(self, slots: int) -> int:
        try:
            return _native.ReplayRings.bytes(self.num_rows, slots, *self.form.sizes)
        except ValueError as error:
            raise ConfigError(f"{error}; {replay_block.LESS}") from None

    def _make_block(self, fd: int | None, file: Path | None) -> NDArray[np.uint8]:
        nbytes = self._nbytes(self.slots)
        records = self.num_rows * self.slots
        what = f"{self.spec.env_id}: a replay memory of {records:,} records"
        if fd is not None and file is not None:
            raise ConfigError("a replay memory lies in fd or in file, not in both")
        if fd is not None:
            return replay_block.shared(fd, nbytes, what)
        if file is not None:
            return replay_block.in_file(file, nbytes, what)
        return replay_block.on_heap(nbytes, what)

    def _check_heads(self, place: object) -> None:
        """ConfigError where what a row says of itself is not what its ring holds."""
        for row in np.flatnonzero(self.heads[:, 0]).tolist():
            newest = int(self.heads[row, 0]) - 1
            if int(self.ring[row, newest % self.slots, 0]) < 2 * newest + 2:
                raise ConfigError(
                    f"{place} is damaged: record {newest} of row {row} is not there; delete it, or restore a checkpoint"
                )
