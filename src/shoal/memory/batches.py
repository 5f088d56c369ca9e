"""Batches of transitions: their arrays, parts of them, and the native reader that writes them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from shoal.types import Transitions, map_tree, select

if TYPE_CHECKING:
    from shoal import _native
    from shoal.memory.replay_block import RecordForm
    from shoal.types import Tree


def attach(reader: _native.ReplayReader, form: RecordForm, batch: Transitions) -> None:
    """Has native code write what it draws to a batch's arrays, recurrent states to some that nobody reads."""
    reader.attach(
        form.obs.flat(map_tree(torch.Tensor.numpy, batch.obs)),
        form.obs.flat(map_tree(torch.Tensor.numpy, batch.next_obs)),
        form.action.flat(map_tree(torch.Tensor.numpy, batch.action))
        + form.state.flat(form.state.allocate(len(batch.key))),
        None if batch.action_mask is None else batch.action_mask.numpy(),
        None if batch.next_action_mask is None else batch.next_action_mask.numpy(),
        batch.reward.numpy(),
        batch.discount.numpy(),
        batch.steps.numpy(),
        batch.version.numpy(),
        batch.weight.numpy(),
        batch.error.numpy(),
        batch.key,
    )


def part_of(batch: Transitions, at: slice) -> Transitions:
    """Some of a batch's transitions, in the same memory."""
    parts: dict[str, Tree] = {}
    for field in fields(batch):
        whole = getattr(batch, field.name)
        parts[field.name] = None if whole is None else select(whole, at)
    return Transitions(**parts)


class HasForm(Protocol):
    """A memory, or what stands for several."""

    @property
    def form(self) -> RecordForm:
        """Of its records."""
        ...

    @property
    def slots(self) -> int:
        """Records of each row."""
        ...

    @property
    def num_rows(self) -> int:
        """Rows."""
        ...


def allocate(memory: HasForm, batch: int) -> Transitions:
    """Zeroed tensors [B, ...] for a batch of what a memory holds."""
    form = memory.form

    def tensors(tree: Tree) -> Tree:
        return map_tree(torch.from_numpy, tree)

    def floats() -> torch.Tensor:
        return torch.zeros(batch)

    def ints() -> torch.Tensor:
        return torch.zeros(batch, dtype=torch.int32)

    def masks() -> torch.Tensor | None:
        if not form.options:
            return None
        return torch.ones((batch, form.options), dtype=torch.bool)

    return Transitions(
        obs=tensors(form.obs.allocate(batch)),
        action=tensors(form.action.allocate(batch)),
        reward=floats(),
        discount=floats(),
        next_obs=tensors(form.obs.allocate(batch)),
        steps=ints(),
        weight=torch.ones(batch),
        version=ints(),
        error=floats(),
        key=np.zeros(batch, np.int64),
        action_mask=masks(),
        next_action_mask=masks(),
        target=floats(),
    )
