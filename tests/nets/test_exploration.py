"""State-dependent exploration: its numbers by hand, how long its noise lasts, what is refused, and resume."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import distributions as td
from torch.optim import Adam

import shoal
from shoal.algos.ppo import PPO, ppo_loss
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.nets.exploration import SquashedStateDependentNormal, StateDependentNormal
from shoal.nets.policy import Network, make_policy
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError, Spec
from tests.run.test_resume import weights_sha256

BOX2 = spaces.Box(-2, 2, (2,), np.float32)


class Still(gym.Env[Any, Any]):
    """Always sees the same; never ends."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = BOX2

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._seen(), 1.0, False, False, {}

    def _seen(self) -> Any:
        return np.array([0.5, -1, 0.25], np.float32)


def by_hand() -> StateDependentNormal:
    """Features [1, 2], one action of mean 3, sigma 2 and 1/2."""
    log_std = torch.tensor([[2.0], [0.5]], dtype=torch.float64).log().requires_grad_()
    features = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    bounds = torch.tensor([-2.0]), torch.tensor([2.0])
    return StateDependentNormal(torch.tensor([3.0]).double(), log_std, features, bounds, interval=4)


def test_numbers_by_hand() -> None:
    """Variance 1 * 4 + 4 / 4 = 5; theta / sigma of 0.5 and -1 adds 1 * 1 - 0.5 * 2 = 0; of 1 and 0, 2."""
    found = by_hand()
    gaussian = td.Normal(3.0, (5 + 1e-6) ** 0.5)
    action = torch.tensor([1.0]).double()
    torch.testing.assert_close(found.log_prob(action), gaussian.log_prob(action).sum())
    torch.testing.assert_close(found.entropy().float(), gaussian.entropy())
    assert found.sample(torch.tensor([0.5, -1.0]).double()).tolist() == pytest.approx([3.0])
    assert found.sample(torch.tensor([1.0, 0.0]).double()).tolist() == pytest.approx([5.0])
    assert (found.noise_size, found.noise_interval, found.mode().tolist()) == (2, 4, [3.0])
    squashed = SquashedStateDependentNormal(found)
    assert squashed.sample(torch.tensor([1.0, 0.0]).double()).tolist() == pytest.approx([5.0])
    slope = torch.log(1 - torch.tanh(action) ** 2).sum()
    torch.testing.assert_close(squashed.log_prob(action), found.log_prob(action) - slope)


def test_features_do_not_learn_from_the_variance() -> None:
    """Sigma does: d log(var) / 2 / d log_std is phi^2 sigma^2 / var, 4/5 and 1/5."""
    found = by_hand()
    assert not found.features.requires_grad
    leaf = torch.tensor([[2.0], [0.5]], dtype=torch.float64).log().requires_grad_()
    again = StateDependentNormal(found.mean, leaf, found.features, (found.low, found.high), interval=1)
    again.entropy().backward()
    assert leaf.grad is not None
    assert leaf.grad.ravel().tolist() == pytest.approx([0.8, 0.2], abs=1e-6)


@pytest.mark.parametrize("network", [{}, {"share": True}, {"recurrent": "gru"}], ids=["towers", "shared", "gru"])
def test_the_noise_lasts_for_its_interval(network: dict[str, Any]) -> None:
    """Two rollouts of 6 steps in which nothing changes: the same action for 4 steps, then another; rows differ."""
    env = make(Still, 2)
    policy = make_policy(env.spec, Network(hidden=(8,), sde_interval=4, **network), 1)
    learner = Learner(policy, Adam, lr=1e-3)
    assert learner.networks["policy"].plan is None
    stream = rollouts(env, learner, num_steps=6, acting=Acting(3))
    actions: list[np.ndarray[Any, Any]] = []
    for _ in range(2):
        steps: Any = next(stream)
        actions += list(steps.action.numpy().copy())
        output: Any = policy(steps.obs, steps.state, steps.start)
        torch.testing.assert_close(output.distribution.log_prob(steps.action), steps.log_prob)
        stream.publish()
    if "recurrent" not in network:
        changes = [t for t, (one, two) in enumerate(pairwise(actions), 1) if not np.array_equal(one, two)]
        assert changes == [4, 8]
    assert not np.array_equal(actions[0][0], actions[0][1])


def test_a_gradient_step_moves_every_deviation() -> None:
    """The loss reaches log_std [features, actions]."""
    env = make(Still, 2)
    policy: Any = make_policy(env.spec, Network(hidden=(8,), sde_interval=4), 1)
    assert policy.log_std.shape == (8, 2)
    learner = Learner(policy, Adam, lr=1e-2)
    steps = next(rollouts(env, learner, num_steps=6, acting=Acting(3)))
    before = policy.log_std.detach().clone()
    advantage = torch.linspace(-1, 1, 12).reshape(6, 2)
    learner.step(ppo_loss, steps.with_targets(advantage, advantage), PPO(ent_coef=0.1))
    assert (policy.log_std != before).all()


@pytest.mark.parametrize(
    ("space", "squash", "told"),
    [
        (spaces.Discrete(3), False, r"network.sde_interval explores in a Box of one axis, got Discrete\(3\)"),
        (spaces.Box(-1, 1, (2, 2)), False, "explores in a Box of one axis"),
        (spaces.Box(-np.inf, 1, (2,)), True, "squashing needs a bounded Box"),
    ],
)
def test_other_actions_are_refused(space: Any, told: str, *, squash: bool) -> None:
    """There is no noise that such a policy could draw."""
    spec = Spec.of("Test-v0", Still.observation_space, space)
    with pytest.raises(ConfigError, match=told):
        make_policy(spec, Network(sde_interval=4, squash=squash), 1)
    with pytest.raises(ConfigError, match="sde_interval must be >= 0, got -1"):
        Network(sde_interval=-1)


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.usefixtures("few_greedy_episodes")
def test_a_resumed_run_equals_a_whole_one(algo: str, run_dir: Path) -> None:
    """Stopped after 2 of 5 updates of 6 steps, in the middle of an interval of 5."""
    network = {"hidden": [8], "sde_interval": 5, "squash": algo == "a2c"}
    settings: dict[str, Any] = {"num_envs": 4, "num_steps": 6, "total_timesteps": 5 * 4 * 6, "network": network}
    settings |= {"num_minibatches": 2, "update_epochs": 1} if algo == "ppo" else {}
    settings |= {"stop_at": float("inf"), "panel": "none", "run_dir": run_dir, "algo": algo}

    def stop(run: Any, record: Any) -> None:
        if run.updates == 2:
            run.stop("two")

    whole = shoal.train("Pendulum-v1", name="whole", **settings).path
    halves = shoal.train("Pendulum-v1", name="halves", callbacks=[stop], **settings).path
    shoal.resume(halves, panel="none")
    assert weights_sha256(halves) == weights_sha256(whole)
    assert shoal.load(halves).act(np.zeros(3), greedy=False).shape == (1,)
