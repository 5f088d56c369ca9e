"""A reader of a replay memory: batches of transitions, with settings of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from shoal import _native
from shoal.types import ConfigError, Transitions, check_least, map_tree

if TYPE_CHECKING:
    from shoal.memory.replay import ReplayMemory
    from shoal.types import Tree

MOST_BATCH = 2**24


class Reader:
    """Samples transitions of at most `n_step` steps from a memory, every step that can begin one as likely.

    A memory may have any number of readers, in any process; each is used by one thread
    at a time.
    """

    def __init__(
        self,
        memory: ReplayMemory,
        *,
        batch_size: int,
        n_step: int = 1,
        gamma: float = 0.99,
        seed: int = 0,
        checked: bool = True,
    ) -> None:
        """A reader that begins with the random numbers of `seed`.

        Args:
            memory: which it reads.
            batch_size: transitions of a sample.
            n_step: steps of a transition, at most.
            gamma: the discount of one step.
            seed: of what is drawn.
            checked: False only to show in a test what the checks of records keep out.

        Raises:
            ConfigError: a setting does not fit the memory.
        """
        self.memory = memory
        self.batch_size, self.n_step, self.gamma = batch_size, n_step, gamma
        check_least(self, batch_size=1, n_step=1, gamma=0)
        if gamma > 1 or batch_size > MOST_BATCH:
            raise ConfigError(
                f"gamma must be at most 1 and batch_size at most {MOST_BATCH:,}, got {gamma} and {batch_size}"
            )
        least = 2 * n_step + 2
        if memory.slots < least:
            raise ConfigError(
                f"n_step={n_step} needs {least} records of each row, and the memory has room for {memory.slots}; "
                f"set its capacity to at least {least * memory.num_rows}"
            )
        self._native = _native.ReplayReader(
            memory.rings, batch_size, n_step, gamma, seed % 2**64, checked=checked
        )
        self._batch = _allocate(memory, batch_size)
        self._attach(self._batch)

    def sample(self) -> Transitions:
        """The next batch; its arrays are written anew by the next call.

        Raises:
            RuntimeError: no step can be sampled yet, or writers overwrite them faster than they are read.
        """
        if not self._native.sample():
            raise RuntimeError(self._why_not())
        return self._batch

    def _attach(self, batch: Transitions) -> None:
        form = self.memory.form
        self._native.attach(
            form.obs.flat(map_tree(torch.Tensor.numpy, batch.obs)),
            form.obs.flat(map_tree(torch.Tensor.numpy, batch.next_obs)),
            form.action.flat(map_tree(torch.Tensor.numpy, batch.action)),
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

    def _why_not(self) -> str:
        if len(self.memory) < 2 * self.memory.num_rows:
            return (
                f"nothing can be sampled yet: the memory holds {len(self.memory)} records of "
                f"{self.memory.num_rows} rows, and a transition needs two of one row; collect more before learning"
            )
        return (
            "nothing can be sampled: no step that the memory holds has the step after it, or writers overwrite all of "
            "them while they are read; set its capacity to more"
        )


def _allocate(memory: ReplayMemory, batch: int) -> Transitions:
    """Zeroed tensors [B, ...]."""
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
