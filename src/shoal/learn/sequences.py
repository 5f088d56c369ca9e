"""Sequences on their way to a loss: the states that networks come to, and the values that a target network gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from shoal.nets.q_network import action_values
from shoal.types import select

if TYPE_CHECKING:
    from shoal.learn.learner import Learner
    from shoal.types import Sequences


def burned_in(
    learner: Learner, target: str, batch: Sequences, *, burn_in: int
) -> Sequences:
    """What is learned from: `batch` without its first `burn_in` records, and with the target network's values.

    Both networks go through those records from the stored state, without gradients; a stored state is of older weights,
    and theirs are of the present ones (Kapturowski et al. 2019, section 3).

    Args:
        learner: its policy and the network `target` are Q-networks with a memory.
        target: the name of the target network.
        batch: sequences [L, B].
        burn_in: records that only warm the state up, fewer than L.
    """
    policy, slow = learner.module("policy"), learner.module(target)
    with torch.no_grad():
        values = action_values(slow(batch.obs, batch.state, batch.start))
        batch = batch.with_next_values(values)
        if not burn_in:
            return batch
        first = slice(0, burn_in)
        seen, start = select(batch.obs, first), batch.start[first]
        state = policy(seen, batch.state, start).state
        return batch.after(burn_in, state)
