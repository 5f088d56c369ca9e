"""Guarded rows in streams: what an on-policy learner gets of them, and what a memory keeps."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shoal.envs.action_guard.guarded import guarded
from shoal.envs.action_guard.settings import ActionGuard
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.nets.deterministic import Deterministic
from shoal.nets.policy import Network, Output, make_policy
from shoal.stream.actors.rows import ActorRows, ActorSettings
from shoal.stream.rollouts import rollouts
from shoal.stream.schedules import Async, Sync

GUARD = ActionGuard(low=(-1,), high=(1,), max_change=(0.5,), penalty=2)


def make_rows(num_envs: int) -> Any:
    return guarded(make("Pendulum-v1", num_envs, env_kwargs={"max_episode_steps": 20}), GUARD)


class Wants(nn.Module):
    """Wants 0.9 of the space, so 1.8, at the first step and -0.9 of it at all others."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def initial_state(self, num_rows: int) -> None:
        return

    def forward(self, obs: torch.Tensor, state: None, start: torch.Tensor) -> Output:
        action = torch.where(start, 0.9, -0.9).unsqueeze(-1)
        return Output(Deterministic(action, torch.tensor([-2.0]), torch.tensor([2.0])), torch.zeros(start.shape), None)


def test_learners_get_what_was_chosen_and_memories_what_was_done() -> None:
    env = make_rows(2)
    stream = rollouts(env, Wants(), num_steps=5, acting=Acting(0, native=False, executed=True))
    steps = next(iter(stream))
    (slab,) = stream.slabs
    assert steps.action[..., 0].tolist() == [[pytest.approx(0.9)] * 2, *[[pytest.approx(-0.9)] * 2] * 4]
    # 1.8 is clipped to 1; then -1.8 is held to 0.5 below the action before, and to -1. Half of that is kept.
    expected = np.array([1.0, 0.5, 0.0, -0.5, -1.0]) / 2
    assert slab.memorable[..., 0] == pytest.approx(np.stack([expected] * 2, 1))
    # What the environment says, less the penalty of 2.
    other = make("Pendulum-v1", 2)
    other.reset(0)
    other.recv()
    for t, action in enumerate(expected * 2):
        other.send(slice(0, 2), np.full((2, 1), action, np.float32))
        assert slab.reward[t] == pytest.approx(other.recv().reward - 2, abs=1e-6)
    env.close()
    other.close()


def test_an_action_that_passes_is_kept_as_it_was_chosen() -> None:
    env = guarded(make("Pendulum-v1", 4), ActionGuard(low=(-1.9,)))
    policy = make_policy(env.spec, Network(hidden=(8,), squash=True), 1)
    stream = rollouts(env, policy, num_steps=16, acting=Acting(0, executed=True))
    next(iter(stream))
    (slab,) = stream.slabs
    same = slab.memorable == slab.action
    assert same.mean() > 0.5
    # Before the tanh: of -1.9 in [-2, 2] that is atanh(-0.95).
    assert slab.memorable[~same] == pytest.approx(np.full((~same).sum(), np.arctanh(-0.95)), abs=1e-4)
    env.close()


def collected(env: Any, schedule: Any, count: int) -> list[dict[str, Any]]:
    policy = make_policy(env.spec, Network(hidden=(8,)), 1)
    stream = rollouts(env, policy, num_steps=8, schedule=schedule, acting=Acting(3, executed=True))
    found: list[dict[str, Any]] = []
    for _ in range(count):
        steps = next(stream)
        (slab,) = stream.slabs
        kept = {"action": slab.action, "memorable": slab.memorable, "reward": slab.reward, "obs": slab.obs}
        shares = stream.episodes.info["action_guard/share"]
        found.append({name: np.array(array) for name, array in kept.items()} | {"share": shares})
        assert torch.isfinite(steps.reward).all()
        stream.publish()
    env.close()
    return found


@pytest.mark.slow
def test_actors_give_the_bits_of_one_process() -> None:
    mine = collected(make_rows(4), Sync(), 4)
    rows = ActorRows(partial(make_rows), 4, ActorSettings(2))
    theirs = collected(rows, Async(0), 4)
    for one, other in zip(mine, theirs, strict=True):
        for name, array in one.items():
            assert np.array_equal(array, other[name]), name
    assert any(len(one["share"]) for one in mine)
    assert (mine[0]["memorable"] != mine[0]["action"]).any()


def test_the_middle_of_a_rollout_is_saved_with_what_was_done() -> None:
    from shoal.memory.begun import first_steps, put_first_steps
    from shoal.memory.slab import Slab

    env = make_rows(2)
    slab, other = (Slab(env.spec, 3, 2, executed=True) for _ in range(2))
    slab.executed[:] = np.arange(6).reshape(3, 2, 1)
    other.clear()
    slab.clear()
    put_first_steps(other, first_steps(slab, 2))
    assert other.executed[:2].tolist() == slab.executed[:2].tolist()
    env.close()
