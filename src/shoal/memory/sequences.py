"""A reader of a replay memory that hands out sequences: records of one row in order, with the recurrent state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.memory.hindsight import BROKEN, HEAD_WORDS, NO_STEP
from shoal.types import ConfigError, Leaf, Sequences, check_least, check_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.memory.replay import ReplayMemory
    from shoal.types import Layout, Tree

MOST_TRIES = 200
TERMINATED, ENDED, FINAL = 1, 1 | 2, 4
"""Flags of a record, as native code writes them."""


class SequenceReader:
    """Samples sequences of `length` records, every step that so many records begin with as likely.

    An episode's last observation is a record of its own, so that a truncated episode bootstraps from it.
    """

    def __init__(
        self,
        memory: ReplayMemory,
        *,
        batch_size: int,
        length: int,
        gamma: float = 0.99,
        seed: int = 0,
        rows: slice | None = None,
    ) -> None:
        """A reader that begins with the random numbers of `seed`.

        Args:
            memory: which it reads; its records hold recurrent states.
            batch_size: sequences of a sample, B.
            length: records of a sequence, L.
            gamma: the discount of one step.
            seed: of what is drawn.
            rows: whose records are drawn; None: those of all.

        Raises:
            ConfigError: the memory holds no states, stacks of frames, or too few records.
        """
        self.memory, self.batch_size, self.length = memory, batch_size, length
        self.gamma, self.rows = gamma, rows or slice(0, memory.num_rows)
        check_least(self, batch_size=1, length=2)
        check_ranges(self, gamma=(0, 1))
        _check_memory(memory, length)
        self.overwritten = 0
        """How many times a sequence was drawn again because a writer was faster."""
        self._rng = np.random.Generator(np.random.PCG64([seed % 2**64, 3]))
        self._parts = _Parts(memory)
        self._ahead = np.arange(length)[:, None]

    def sample(self) -> Sequences:
        """The next batch.

        Raises:
            RuntimeError: no row holds so many records yet, or writers overwrite them faster than they are read.
        """
        batch = self.batch_size
        words = np.empty((self.length, batch, self.memory.ring.shape[2]), np.uint64)
        rows, index = np.empty(batch, np.int64), np.empty(batch, np.int64)
        missing = np.arange(batch)
        for _ in range(MOST_TRIES):
            row, first = self._draw(len(missing))
            found, good = self._read(row, first)
            at = missing[good]
            words[:, at], rows[at], index[at] = found[:, good], row[good], first[good]
            missing = missing[~good]
            if not len(missing):
                return self._decoded(words, rows + self.memory.num_rows * index)
        raise RuntimeError(
            "nothing can be sampled: writers overwrite all records while they are read; set the memory's capacity to "
            "more"
        )

    def set_horizon(self, *, n_step: int, gamma: float) -> None:
        """Discounts by another gamma from the next batch on; how many steps a target sums is the algorithm's."""
        self.gamma = gamma

    def state(self) -> dict[str, Any]:
        """What it goes on from, beside the memory: the random numbers."""
        return {"random": dict(self._rng.bit_generator.state)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`, when its memory was restored; ConfigError where it is damaged."""
        try:
            self._rng.bit_generator.state = state["random"]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the saved state of a reader of sequences does not fit this one: {error!r}"
            ) from error

    def _draw(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and first records of so many sequences that were whole when the rings were looked at."""
        memory = self.memory
        heads = memory.heads[self.rows, 0].astype(np.int64)
        held = np.minimum(heads, memory.slots)
        starts = np.maximum(held - self.length + 1, 0)
        ends = starts.cumsum()
        if not ends[-1]:
            raise RuntimeError(
                f"nothing can be sampled yet: the rows hold up to {int(held.max())} records each, and a sequence has "
                f"{self.length}; collect more before learning (replay.learning_starts)"
            )
        at = self._rng.integers(ends[-1], size=count)
        row = np.searchsorted(ends, at, side="right")
        first = (heads - held)[row] + at - (ends - starts)[row]
        return row + self.rows.start, first

    def _read(
        self, row: NDArray[np.int64], first: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """The words [L, n, ...] of sequences, and which of them are of those records and begin with a step."""
        ring, index = self.memory.ring, first + self._ahead
        slot = index % self.memory.slots
        wanted = (2 * index + 2).astype(np.uint64)
        before = ring[row, slot, 0] == wanted
        words = ring[row, slot]
        # A writer changes a record's sequence number before its words: if it is as it was, so were they.
        whole = (before & (ring[row, slot, 0] == wanted)).all(0)
        self.overwritten += int((~whole).sum())
        return words, whole & (words[0, :, HEAD_WORDS - 1] & NO_STEP == 0)

    def _decoded(self, words: NDArray[np.uint64], key: NDArray[np.int64]) -> Sequences:
        """What the words [L, B, ...] say."""
        parts, flags = self._parts, words[..., HEAD_WORDS - 1].astype(np.int64)
        numbers = np.ascontiguousarray(words[..., 1]).view(np.uint32)
        numbers = numbers.reshape(*flags.shape, 2)
        valid = _leads(flags)
        reward = np.ascontiguousarray(numbers[..., 0]).view(np.float32)
        version = np.ascontiguousarray(numbers[..., 1]).view(np.int32)
        goes_on = flags & TERMINATED == 0
        mask: torch.Tensor | None = None
        if parts.mask is not None:
            seen = parts.mask.of(words)
            seen[flags & NO_STEP != 0] = True
            mask = torch.from_numpy(seen)
        return Sequences(
            obs=parts.obs.of(words),
            action=parts.action.of(words),
            reward=torch.from_numpy(np.where(valid, reward, np.float32(0))),
            discount=torch.from_numpy(np.float32(self.gamma) * goes_on),
            start=torch.from_numpy(flags & BROKEN != 0),
            valid=torch.from_numpy(valid),
            state=parts.state.of(words[0]),
            weight=torch.ones(len(key)),
            key=key,
            version=torch.from_numpy(version),
            action_mask=mask,
        )


def _leads(flags: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which records [L, B] are steps that led to the record behind them; the last one's is not there."""
    step, ended = flags & NO_STEP == 0, flags & ENDED != 0
    follows = np.where(ended[:-1], flags[1:] & FINAL != 0, flags[1:] & BROKEN == 0)
    valid = np.zeros(flags.shape, np.bool_)
    valid[:-1] = step[:-1] & follows
    return valid


class _Part:
    """An array of a record: where its words lie, and how they are read."""

    def __init__(self, leaf: Leaf, first: int) -> None:
        self.leaf, self.first = leaf, first
        self.end = first + -(-leaf.nbytes(()) // 8)

    def of(self, words: NDArray[np.uint64]) -> NDArray[Any]:
        """Words of records [..., words] -> a copy of the array [..., *shape]."""
        own = np.ascontiguousarray(words[..., self.first : self.end]).view(np.uint8)
        own = np.ascontiguousarray(own[..., : self.leaf.nbytes(())])
        return own.view(self.leaf.dtype).reshape(*words.shape[:-1], *self.leaf.shape)


class _Tree:
    """A tree of a record's arrays."""

    def __init__(self, layout: Layout, first: int) -> None:
        self.layout = layout
        self.parts: list[_Part] = []
        self.end = first
        for leaf in layout.leaves:
            self.parts.append(_Part(leaf, self.end))
            self.end = self.parts[-1].end

    def of(self, words: NDArray[np.uint64]) -> Tree:
        """Words of records [..., words] -> tensors [..., *shape]."""
        arrays = [torch.from_numpy(part.of(words)) for part in self.parts]
        return self.layout.tree(arrays)


class _Parts:
    """What the records of a memory hold."""

    def __init__(self, memory: ReplayMemory) -> None:
        form = memory.form
        self.obs = _Tree(form.obs, HEAD_WORDS)
        self.action = _Tree(form.action, self.obs.end)
        self.state = _Tree(form.state, self.action.end)
        self.mask: _Part | None = None
        if form.options:
            leaf = Leaf((), np.dtype(np.bool_), (form.options,))
            self.mask = _Part(leaf, self.state.end)


def _check_memory(memory: ReplayMemory, length: int) -> None:
    if not memory.form.state.leaves:
        raise ConfigError(
            "sequences begin with the recurrent state that the actor had, and this memory keeps none; make it with "
            "state=, the layout of the policy's"
        )
    if memory.form.frames > 1:
        raise ConfigError(
            f"sequences are not put together from stacks of frames (here of {memory.form.frames}); a network with a "
            "memory sees the frames one by one: set preprocessing.frame_stack to 1"
        )
    if memory.slots < 2 * length:
        raise ConfigError(
            f"sequences of {length} records need room for {2 * length} in each row, and the memory has it for "
            f"{memory.slots}; set its capacity (replay.buffer_size) to at least {2 * length * memory.num_rows}, or "
            "draw shorter ones"
        )
