"""Rows that go straight into a slab by native calls: what the collector writes by itself, bit for bit."""

from __future__ import annotations

from contextlib import closing
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TransformObservation

from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.learn.acting import Acting, make_actor
from shoal.stream import collector
from shoal.stream.straight import Straight, straight_of
from tests.stream.test_actors import learner_of, moved, stream_of
from tests.stream.test_rollouts import kept

if TYPE_CHECKING:
    from shoal.types import Steps


def in_float64() -> gym.Env[Any, Any]:
    """Observations whose bits float32 cannot hold."""
    env = gym.make("MountainCarContinuous-v0")
    space: Any = env.observation_space
    wide = gym.spaces.Box(space.low.astype(np.float64), space.high.astype(np.float64), dtype=np.float64)
    return TransformObservation(env, lambda obs: obs.astype(np.float64) / 3, wide)


TASKS: dict[str, Any] = {"discrete": "CartPole-v1", "box": "MountainCarContinuous-v0", "float64": in_float64}


def collected(env_id: Any) -> tuple[list[Steps], list[Any], Any]:
    """Rollouts of seven steps whose episodes have eleven, and what the rows came to at last."""
    seen = Preprocessing(max_episode_steps=11)
    with closing(make(env_id, 3, backend="serial", preprocessing=seen)) as env:
        learner = learner_of(env.spec)
        stream = stream_of(env, learner, acting=Acting(5, act_block=2))
        found: list[Steps] = []
        ended: list[Any] = []
        for _ in range(4):
            found.append(kept(next(stream)))
            ended.append(stream.episodes)
            moved(learner, 0.01)
            stream.publish()
        return found, ended, stream.state()["roles"]["all"]


@pytest.mark.parametrize("kind", TASKS)
def test_it_equals_the_collector(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field of every step, episodes, counters of noise, start flags."""
    straight, their_ends, their_rows = collected(TASKS[kind])
    monkeypatch.setattr(collector, "straight_of", lambda *_: None)
    plain, my_ends, my_rows = collected(TASKS[kind])
    assert any(steps.truncated.any() for steps in plain)
    for one, other in zip(plain, straight, strict=True):
        for field in fields(one):
            mine, theirs = getattr(one, field.name), getattr(other, field.name)
            if torch.is_tensor(mine):
                used = slice(0, int(one.final_index.max()) + 1 if field.name == "final_obs" else None)
                assert torch.equal(mine[used], theirs[used]), field.name
    for one, other in zip(my_ends, their_ends, strict=True):
        np.testing.assert_array_equal(one.returns, other.returns)
    for name in ("start", "row_step"):
        np.testing.assert_array_equal(my_rows[name], their_rows[name])


@pytest.mark.parametrize("kind", TASKS)
def test_it_is_taken(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By plain rows and policies, and made once for a slab as long as nothing of it changes."""
    made: list[Straight | None] = []

    def noted(*given: Any) -> Straight | None:
        made.append(straight_of(*given))
        return made[-1]

    monkeypatch.setattr(collector, "straight_of", noted)
    collected(TASKS[kind])
    assert len(made) == 4
    assert isinstance(made[0], Straight)
    assert all(one is made[0] for one in made)


def test_a_rollout_is_converted_once_until_torch_writes_to_it() -> None:
    with closing(make(in_float64, 3)) as env:
        learner = learner_of(env.spec)
        steps = next(stream_of(env, learner))
        actor: Any = make_actor(learner.policy, env.spec, 3, Acting(5))
        weights, index = actor.snapshot.flat.clone().requires_grad_(), np.arange(21, dtype=np.int32)

        def values() -> torch.Tensor:
            return actor.plan.gradients.outputs(steps, index, weights).value

        before, samples = values(), actor.plan.gradients._samples
        assert torch.equal(values(), before)
        assert actor.plan.gradients._samples is samples
        steps.obs.add_(1.0)
        assert not torch.equal(values(), before)
