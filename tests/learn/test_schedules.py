"""Schedules of torch's beside native steps: what they change in an optimizer's groups counts at the next step."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch.optim import Adam, RMSprop
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR

from shoal.algos.a2c import A2C, a2c_loss
from shoal.learn.learner import Learner
from tests.learn.paths import PATHS, learner_of, loss_of, rollout_of

CFG = A2C()


def cycle_of(learner: Learner) -> OneCycleLR:
    """A schedule of the step size and, the other way round, of betas or momentum."""
    optimizer = learner.networks["policy"].optimizer
    assert optimizer is not None
    return OneCycleLR(optimizer, 0.02, total_steps=12)


def learn(learner: Learner, schedule: OneCycleLR, path: str, steps: Any, count: int) -> None:
    for _ in range(count):
        learner.step(loss_of(path, a2c_loss), steps, CFG)
        schedule.step()


@pytest.mark.parametrize("optimizer", [Adam, RMSprop])
@pytest.mark.parametrize("path", PATHS)
def test_a_cycle_is_followed_and_resumed_exactly(path: str, optimizer: Any) -> None:
    """As torch alone has it; and bit for bit the same where a new learner takes over in the middle."""
    policy, steps = rollout_of("categorical")
    mine, theirs, first, second = (
        learner_of(way, copy.deepcopy(policy), optimizer) for way in (path, "torch", path, path)
    )
    learn(mine, cycle_of(mine), path, steps, 8)
    learn(theirs, cycle_of(theirs), "torch", steps, 8)
    torch.testing.assert_close(mine.flat, theirs.flat, rtol=2e-4, atol=2e-5)
    before, after = cycle_of(first), cycle_of(second)
    learn(first, before, path, steps, 4)
    second.restore(copy.deepcopy(first.state()))
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    learn(second, after, path, steps, 4)
    assert torch.equal(second.flat, mine.flat)


CHANGES: list[tuple[Any, dict[str, Any]]] = [
    (Adam, {"betas": (0.5, 0.6)}),
    (Adam, {"eps": 0.5}),
    (Adam, {"weight_decay": 0.1}),
    (Adam, {"amsgrad": True}),
    (Adam, {"maximize": True}),
    (RMSprop, {"alpha": 0.5}),
    (RMSprop, {"eps": 0.5}),
    (RMSprop, {"weight_decay": 0.1}),
    (RMSprop, {"momentum": 0.5}),
    (RMSprop, {"centered": True}),
]


def keep_moments(optimizer: Any) -> None:
    """The moments that torch makes at an optimizer's first step only."""
    for parameter, state in optimizer.state.items():
        for moment in ("max_exp_avg_sq", "momentum_buffer", "grad_avg"):
            state.setdefault(moment, torch.zeros_like(parameter))


@pytest.mark.parametrize(("optimizer", "change"), CHANGES)
@pytest.mark.parametrize("path", ["fused", "native"])
def test_a_change_between_steps_counts_at_once(path: str, optimizer: Any, change: dict[str, Any]) -> None:
    """There and back: each step is that of an optimizer with these values, whether native code has it or not."""
    policy, steps = rollout_of("categorical")
    mine, theirs = (learner_of(way, copy.deepcopy(policy), optimizer) for way in (path, "torch"))
    for learner, way in ((mine, path), (theirs, "torch")):
        own: Any = learner.networks["policy"].optimizer
        (group,) = own.param_groups
        usual = {name: group[name] for name in change}
        for values in ({}, change, usual, change):
            group.update(values)
            if learner is theirs:
                keep_moments(own)
            learner.step(loss_of(way, a2c_loss), steps, CFG)
    torch.testing.assert_close(mine.flat, theirs.flat, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("path", PATHS)
def test_no_warning_where_the_order_is_right(path: str) -> None:
    """Torch warns of a schedule that steps before its optimizer: native steps count, and their absence still does."""
    policy, steps = rollout_of("categorical")
    learner = learner_of(path, policy)
    optimizer: Any = learner.networks["policy"].optimizer
    schedule = ExponentialLR(optimizer, 0.9)
    learner.step(loss_of(path, a2c_loss), steps, CFG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()
    late: Any = learner_of(path, copy.deepcopy(policy)).networks["policy"].optimizer
    early = ExponentialLR(late, 0.9)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        early.step()
