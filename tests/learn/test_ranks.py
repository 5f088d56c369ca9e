"""Several learners: steps on shares of a batch are one step on all of it, and all of them stay the same bit for bit."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from shoal.learn.minibatches import PER_STEP, minibatches
from shoal.types import Steps, map_tree, select
from tests.learn.paths import CFG, learner_of, ppo_loss, rollout_of
from tests.learn.ranks import together
from tests.learn.test_learner import assert_equal_learners

if TYPE_CHECKING:
    from torch import nn

    from shoal.learn.learner import Learner
    from shoal.learn.ranks import Ranks

SHARES = (slice(0, 3), slice(3, 8))
"""Rows of two ranks, of which one has more."""


def share_of(steps: Steps, rows: slice) -> Steps:
    """The steps of some rows."""

    def cut(x: torch.Tensor) -> torch.Tensor:
        return x[:, rows].contiguous()

    fields = {name: getattr(steps, name) for name in PER_STEP}
    own = {name: map_tree(cut, x) for name, x in fields.items() if x is not None}
    state = None if steps.state is None else map_tree(torch.clone, select(steps.state, rows))
    return replace(steps, state=state, **own)


def epochs_of(learner: Learner, steps: Steps) -> list[list[float]]:
    """Three gradient steps of PPO, each on all that there is."""
    rng = np.random.default_rng(7)
    assert steps.target is not None
    found: list[list[float]] = []
    for _ in range(3):
        parts = minibatches(steps, steps.advantage, steps.target, 1, rng)
        found.extend([float(x) for x in learner.step(ppo_loss, batch, CFG)] for batch in parts)
    return found


def one_rank(ranks: Ranks, policy: nn.Module, steps: Steps, path: str) -> tuple[Learner, list[list[float]]]:
    """What one of two learners comes to."""
    own = share_of(steps, SHARES[ranks.rank])
    learner = learner_of(path, copy.deepcopy(policy), ranks=ranks)
    return learner, epochs_of(learner, own)


@pytest.mark.parametrize("recurrent", ["none", "gru"])
@pytest.mark.parametrize("path", ["native", "torch"])
def test_shares_of_a_batch_learn_what_the_whole_batch_does(recurrent: str, path: str) -> None:
    """Unequal shares, advantages normalized over all of them: statistics, norms, weights and moments as of one."""
    policy, steps = rollout_of("masked", recurrent=recurrent, recurrent_size=6)
    steps = replace(steps, valid=steps.valid & (torch.arange(steps.valid.numel()).view(steps.valid.shape) % 7 != 3))
    alone = learner_of("fused", copy.deepcopy(policy))
    told = epochs_of(alone, steps)
    found = together(2, partial(one_rank, policy=policy, steps=steps, path=path))
    for learner, said in found:
        np.testing.assert_allclose(said, told, rtol=3e-4, atol=3e-5)
        assert_equal_learners(learner, alone)
        assert learner.updates == 3
    assert torch.equal(found[0][0].flat, found[1][0].flat)
    assert found[0][1] == found[1][1]
