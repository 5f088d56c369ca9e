"""Constrained learning, by hand: the multiplier, advantages, targets of costs; and what is refused."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import Adam

from shoal.envs.costs.rows import costed
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.constraint import Multiplier, add_cost_critic, constrained_advantage, cost_gae
from shoal.learn.learner import Learner
from shoal.nets.policy import Network, make_policy
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError


@dataclass(frozen=True)
class Limit:
    cost_limit: float = 4.0
    multiplier_init: float = 0.5
    multiplier_learning_rate: float = 0.25
    multiplier_gain: float = 0.0
    cost_learning_rate: float = 1e-3
    cost_gamma: float = 0.5
    cost_gae_lambda: float = 1.0
    network: Network = field(default_factory=lambda: Network(hidden=(8,)))


def test_a_multiplier_by_hand() -> None:
    multiplier = Multiplier(Limit())
    assert multiplier.value == 0.5
    assert multiplier.update(np.zeros(0)) == 0.5  # no episode ended
    assert multiplier.update(np.array([5.0, 7.0])) == 1.0  # 0.5 + 0.25 * (6 - 4)
    assert multiplier.update(np.array([1.0])) == 0.25
    assert multiplier.update(np.array([0.0])) == 0.0  # never below
    assert multiplier.update(np.array([8.0])) == 1.0  # and from there on
    damped = Multiplier(Limit(multiplier_gain=1.0))
    assert damped.update(np.array([6.0])) == 3.0  # 1 + 1 * 2
    assert damped.update(np.array([2.0])) == 0.0  # 0.5 - 2
    saved = damped.state()
    assert damped.update(np.array([4.0])) == 0.5
    other = Multiplier(Limit(multiplier_gain=1.0))
    other.restore(saved)
    assert other.update(np.array([4.0])) == 0.5


def test_an_advantage_under_a_limit_by_hand() -> None:
    advantage = torch.tensor([[1.0, 3.0], [100.0, 2.0]])
    costs = torch.tensor([[0.0, 1.0], [100.0, 2.0]])
    valid = torch.tensor([[True, True], [False, True]])
    # Mean 2 and deviation sqrt(2/3) of 1, 3, 2; the mean of 0, 1, 2 is 1.
    found = constrained_advantage(advantage, costs, valid, 0.5)[valid]
    scale = 1 / (2 / 3) ** 0.5
    expected = [(-scale + 0.5 * 1) / 1.5, (scale - 0) / 1.5, (0 - 0.5 * 1) / 1.5]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def make_crossing(num_envs: int) -> Any:
    preprocessing = Preprocessing(cost_key="cost", max_episode_steps=5)
    return costed(make("shoal.envs.costs.crossing:Crossing", num_envs, preprocessing=preprocessing))


def test_targets_of_costs_against_a_slow_sum() -> None:
    """With lambda 1 a target is the discounted sum of costs, then the value of what follows the episode's cut."""
    env, cfg = make_crossing(3), Limit()
    learner = Learner(make_policy(env.spec, Network(hidden=(8,)), 1), Adam, lr=1e-3)
    add_cost_critic(learner, env.spec, cfg, 1)
    stream = rollouts(env, learner, num_steps=8, acting=Acting(5))
    steps = next(iter(stream))
    assert steps.cost is not None
    steps.cost.copy_(torch.arange(24).reshape(8, 3))
    advantage, target = cost_gae(learner, steps, stream.latest, cfg)
    critic = learner.module("cost_critic")
    with torch.no_grad():
        value, final, last = critic(steps.obs), critic(steps.final_obs), critic(stream.latest)
    for row in range(3):
        after = last[row]
        for t in reversed(range(8)):
            if steps.truncated[t, row]:
                after = final[int(steps.final_index[t, row])]
            after = steps.cost[t, row] + 0.5 * after
            assert target[t, row].item() == pytest.approx(after.item(), abs=1e-4)
            assert advantage[t, row].item() == pytest.approx((after - value[t, row]).item(), abs=1e-4)
    assert steps.truncated.any()
    env.close()


def test_without_costs_there_is_nothing_to_limit() -> None:
    env = make("CartPole-v1", 1)
    learner = Learner(make_policy(env.spec, Network(hidden=(8,)), 1), Adam, lr=1e-3)
    with pytest.raises(ConfigError, match=r"CartPole-v1 has no costs, which cost_limit is for: set preprocessing.cost"):
        add_cost_critic(learner, env.spec, Limit(), 1)
    env.close()
