"""Rollouts of Q-networks: who explores, and what the values are where options are masked."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.optim import Adam

from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.nets.network import QNet
from shoal.nets.q_network import QNetwork, make_q_network
from shoal.stream.rollouts import rollouts
from shoal.stream.schedules import Overlap, Sync
from shoal.stream.self_play import PastVersions, SelfPlay, against
from shoal.types import Spec
from tests.games import Ring


class Doors(gym.Env[Any, Any]):
    """Observes the step; door 1 is closed at every second one, and nothing ever ends."""

    observation_space = spaces.Box(0, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self) -> None:
        self.count = 0

    def seen(self) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        """The step, and the doors that are open."""
        return np.array([self.count], np.float32), {"action_mask": np.array([1, self.count % 2, 1], np.int8)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Back to step 0."""
        self.count = 0
        return self.seen()

    def step(self, action: Any) -> Any:
        """The next step; a closed door raises."""
        assert action != 1 or self.count % 2 == 1
        self.count += 1
        obs, info = self.seen()
        return obs, 1.0, False, self.count == 9, info


def network_of(spec: Spec, *values: float) -> QNetwork:
    """These values, whatever is seen."""
    made = make_q_network(spec, QNet(hidden=(4,)), 1)
    last: Any = made.q[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor(values))
    return made


@pytest.mark.parametrize("schedule", [Sync(), Overlap()])
@pytest.mark.parametrize("native", [pytest.param(True, id="native"), pytest.param(False, id="torch")])
def test_values_are_of_the_options_that_are_there(schedule: Any, *, native: bool) -> None:
    """Values 1, 5, 3: 5 where door 1 is open, else 3; also after the rollout's last step. All doors at a truncation."""
    env = make(Doors, 2)
    learner = Learner(network_of(env.spec, 1, 5, 3), Adam, lr=1e-3)
    stream = rollouts(env, learner, num_steps=8, schedule=schedule, acting=Acting(1, native=native))
    stream.explore(0.5)
    steps = next(stream)
    assert steps.value[:, 0].tolist() == [3, 5] * 4
    assert steps.next_value[:, 1].tolist() == [5, 3] * 4
    stream.publish()
    assert next(stream).next_value[:3, 0].tolist() == [5, 5, 3]


def test_rows_explore_until_told_otherwise() -> None:
    env = make("MountainCar-v0", 8)
    stream = rollouts(env, Learner(network_of(env.spec, 0, 9, 0), Adam, lr=1e-3), num_steps=50)
    shares: list[float] = []
    for epsilon in (0.0, 0.5, np.linspace(0, 1, 8), 0.0):
        stream.explore(epsilon)
        shares.append((next(stream).action != 1).float().mean().item())
        stream.publish()
    assert shares == pytest.approx([0, 1 / 3, 1 / 3, 0], abs=0.08)
    assert shares[0] == shares[3] == 0


def test_opponents_do_not_explore() -> None:
    env = make(Ring, 4)
    learner = Learner(network_of(env.spec, 0, 9, 0, 0, 0), Adam, lr=1e-3)
    stream = against(SelfPlay(every=1), env, learner, num_steps=8, acting=Acting(3))
    assert isinstance(stream, PastVersions)
    stream.explore(1.0)
    next(stream)
    others = zip(stream._stream.roles, stream._stream.slabs, strict=True)
    taken = {role.name: sorted(set(slab.action[slab.valid].tolist())) for role, slab in others}
    assert len(taken.pop("learner")) > 1
    assert taken == {"opponent_0": [1], "opponent_1": [1]}
