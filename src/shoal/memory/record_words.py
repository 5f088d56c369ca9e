"""What the words of records say: their arrays, and how they follow each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.memory.hindsight import BROKEN, HEAD_WORDS, NO_STEP
from shoal.types import Leaf, Sequences

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.memory.replay_block import RecordForm
    from shoal.types import Layout, Tree

TERMINATED, ENDED, FINAL = 1, 1 | 2, 4
"""Flags of a record, as native code writes them."""


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


class RecordWords:
    """What the records of a memory hold, read from their words, sequence numbers included."""

    def __init__(self, form: RecordForm) -> None:
        """Of records in this form."""
        self.obs = _Tree(form.obs, HEAD_WORDS)
        self.action = _Tree(form.action, self.obs.end)
        self.state = _Tree(form.state, self.action.end)
        self.mask: _Part | None = None
        if form.options:
            leaf = Leaf((), np.dtype(np.bool_), (form.options,))
            self.mask = _Part(leaf, self.state.end)

    def sequences(
        self,
        words: NDArray[np.uint64],
        key: NDArray[np.int64],
        weight: torch.Tensor,
        *,
        gamma: float,
    ) -> Sequences:
        """What the words [L, B, ...] of records say that follow each other, time first."""
        flags = words[..., HEAD_WORDS - 1].astype(np.int64)
        numbers = np.ascontiguousarray(words[..., 1]).view(np.uint32)
        numbers = numbers.reshape(*flags.shape, 2)
        valid = _leads(flags)
        reward = np.ascontiguousarray(numbers[..., 0]).view(np.float32)
        version = np.ascontiguousarray(numbers[..., 1]).view(np.int32)
        goes_on = flags & TERMINATED == 0
        mask: torch.Tensor | None = None
        if self.mask is not None:
            seen = self.mask.of(words)
            seen[flags & NO_STEP != 0] = True
            mask = torch.from_numpy(seen)
        return Sequences(
            obs=self.obs.of(words),
            action=self.action.of(words),
            reward=torch.from_numpy(np.where(valid, reward, np.float32(0))),
            discount=torch.from_numpy(np.float32(gamma) * goes_on),
            start=torch.from_numpy(flags & BROKEN != 0),
            valid=torch.from_numpy(valid),
            state=self.state.of(words[0]),
            weight=weight,
            error=torch.zeros(len(key)),
            key=key,
            version=torch.from_numpy(version),
            action_mask=mask,
        )
