"""What is not finite is refused where it enters: environments, losses' inputs, checkpoints."""

from __future__ import annotations

import copy
import math
import sys
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from torch.optim import Adam, AdamW

from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.experiment.training import train
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.learn.weights import load_weights
from shoal.math.returns import gae, n_step
from shoal.nets.distributions import Categorical, MultiCategorical
from shoal.nets.network import Network
from shoal.nets.policy import make_policy
from shoal.run.evaluate import evaluate
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError, EnvError, select

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # worker processes need not import torch

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.types import Steps


class Large(gym.Env[Any, Any]):
    """Large numbers at its second step."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, reward: float = 0.0, obs: float = 0.0) -> None:
        self.reward, self.obs = reward, obs
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        now = self.count == 2
        return np.full(1, self.obs * now), self.reward if now else 0.0, False, self.count == 9, {}


def steps_of(env_id: str = "CartPole-v1") -> Steps:
    env = make(env_id, 2)
    policy = make_policy(env.spec, Network(), 0)
    return next(rollouts(env, policy, num_steps=4, acting=Acting(0)))


@pytest.mark.parametrize("backend", ["serial", "workers"])
@pytest.mark.parametrize(
    ("what", "says"), [("reward", r"at step 2 of its episode returned the reward -1e\+39"), ("obs", "the observation")]
)
def test_what_float32_cannot_hold_is_the_environment_s_error(backend: str, what: str, says: str) -> None:
    env = make(Large, 2, backend=backend, env_kwargs={what: -1e39})
    policy = make_policy(env.spec, Network(), 0)
    with pytest.raises(EnvError, match=rf"Large: row 0.* {says}.*float32.* holds up to 3\.4e\+38"):
        next(rollouts(env, policy, num_steps=4, acting=Acting(0)))
    env.close()


def large(num_envs: int) -> SyncVectorEnv:
    return SyncVectorEnv([partial(Large, -1e39)] * num_envs)


@pytest.mark.parametrize(
    ("backend", "changed", "right"),
    [
        ("serial", {"reward_clip": (-1.0, 1.0)}, -1.0),
        ("serial", {"reward_sign": True}, -1.0),
        ("serial", {"reward_scale": 1e-38}, -10.0),
        ("workers", {"reward_clip": (-1.0, 1.0)}, -1.0),
        ("vector", {"reward_clip": (-1.0, 1.0)}, -1.0),
    ],
)
def test_a_reward_is_judged_after_its_preprocessing(backend: str, changed: dict[str, Any], right: float) -> None:
    """Returns stay the environment's own, so evaluation plays such rewards as well."""
    seen = Preprocessing(**changed)
    source: Any = large if backend == "vector" else partial(Large, -1e39)
    rows = make(source, 2, backend=backend, preprocessing=seen)
    policy = make_policy(rows.spec, Network(), 0)
    stream = rollouts(rows, policy, num_steps=9, acting=Acting(0))
    assert next(stream).reward[:, 0].tolist() == [0, pytest.approx(right), *[0] * 7]
    assert stream.episodes.returns.tolist() == [-1e39] * 2
    rows.close()
    rows = make(source, 1, backend=backend, preprocessing=seen.for_playing())
    assert evaluate(policy, rows, episodes=1, acting=Acting(0)).returns.tolist() == [-1e39]
    rows.close()


@pytest.mark.parametrize("reward", [math.inf, math.nan])
def test_what_no_clip_makes_finite(reward: float) -> None:
    """NaN and infinities are the environment's error, clipped or not, and so is what a scale makes too large."""
    rows = make(Large, 2, env_kwargs={"reward": reward}, preprocessing=Preprocessing(reward_clip=(-1, 1)))
    with pytest.raises(EnvError, match=rf"row 0 at step 2 .* the reward {reward}"):
        next(rollouts(rows, make_policy(rows.spec, Network(), 0), num_steps=4, acting=Acting(0)))
    rows = make(Large, 2, env_kwargs={"reward": 1e38}, preprocessing=Preprocessing(reward_scale=10))
    with pytest.raises(EnvError, match=r"row 0 has after preprocessing the reward 1e\+39, but float32"):
        next(rollouts(rows, make_policy(rows.spec, Network(), 0), num_steps=4, acting=Acting(0)))


def test_the_largest_float32_is_held() -> None:
    env = make(Large, 2, env_kwargs={"reward": 3e38, "obs": 3e38})
    policy = make_policy(env.spec, Network(), 0)
    assert next(rollouts(env, policy, num_steps=4, acting=Acting(0))).reward.max() == np.float32(3e38)


def test_the_entropy_of_a_choice_that_is_ruled_out() -> None:
    """Two of three equal options are left: log 2."""
    logits = torch.tensor([0.0, -math.inf, 0.0], requires_grad=True)
    entropy = Categorical(logits, start=0).entropy()
    torch.testing.assert_close(entropy, torch.tensor(math.log(2)))
    entropy.backward()
    assert torch.equal(logits.grad if logits.grad is not None else logits, torch.zeros(3))
    both = MultiCategorical(torch.tensor([0.0, -math.inf, 0.0, 0.0]), [2, 2], start=torch.zeros(2))
    torch.testing.assert_close(both.entropy(), torch.tensor(math.log(2)))


@pytest.mark.parametrize("gamma", [None, math.nan, 1.01, -0.1, "0.9", torch.tensor([2.0])])
def test_a_discount_outside_0_to_1_is_refused(gamma: Any) -> None:
    steps = steps_of()
    with pytest.raises(ValueError, match=r"^gamma must"):
        gae(steps, gamma=gamma, gae_lambda=0.9)
    with pytest.raises(ValueError, match=r"^gamma must"):
        n_step(steps, gamma=gamma, n=2)
    with pytest.raises(ValueError, match=r"^gae_lambda must"):
        gae(steps, gamma=0.9, gae_lambda=gamma)


def test_an_empty_rollout_is_refused() -> None:
    steps = steps_of()
    fields = {name: getattr(steps, name) for name in type(steps).__slots__}
    empty = {name: select(x, slice(0, 0)) if torch.is_tensor(x) else x for name, x in fields.items()}
    with pytest.raises(ValueError, match=r"at least one step and row, got \(0, 2\)"):
        gae(type(steps)(**empty), gamma=0.9, gae_lambda=0.9)


@pytest.mark.parametrize("what", ["weight", "moment", "statistic"])
def test_a_state_that_is_not_finite_is_not_saved(what: str) -> None:
    env = make("CartPole-v1", 2)
    policy: Any = make_policy(env.spec, Network(normalize_obs=True), 0)
    learner = Learner(policy, Adam, lr=0.1)
    optimizer: Any = learner.networks["policy"].optimizer
    learner.state()
    with torch.no_grad():
        if what == "weight":
            policy.actor[0].bias[1] = math.inf
        elif what == "moment":
            optimizer.state[policy.actor[0].bias]["exp_avg"][0] = math.nan
        else:
            policy.encoder.normalizer.total_m2[0] = math.nan
    with pytest.raises(FloatingPointError, match=r"is not finite, so nothing was saved"):
        learner.state()


def test_weights_that_are_not_finite_are_not_loaded() -> None:
    policy: Any = make_policy(make("CartPole-v1", 1).spec, Network(), 0)
    saved = {name: x.clone() for name, x in policy.state_dict().items()}
    saved["critic.0.weight"][0, 0] = math.nan
    with pytest.raises(ConfigError, match=r"not finite \(critic\.0\.weight\): that training diverged"):
        load_weights(policy, saved)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("exp_avg", torch.full((2,), math.nan), "moment exp_avg of parameter .* is not finite: that training diverged"),
        (
            "exp_avg_sq",
            torch.zeros(3),
            r"moment exp_avg_sq .* has the shape \(3,\), the parameter \(2,\); the file was",
        ),
        ("step", torch.tensor(-3.0), "has taken -3 steps; the file was altered"),
    ],
)
@pytest.mark.parametrize("optimizer", [Adam, AdamW])
def test_moments_that_cannot_be_are_not_loaded(optimizer: Any, name: str, value: torch.Tensor, said: str) -> None:
    policy: Any = make_policy(make("CartPole-v1", 1).spec, Network(), 0)
    learner = Learner(policy, optimizer, lr=0.1)
    network = learner.networks["policy"]
    own: Any = network.optimizer
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    own.step()
    learner.restore(learner.state())
    saved = copy.deepcopy(learner.state())
    bias = [parameter is policy.actor[-1].bias for parameter in policy.parameters()].index(True)
    saved["networks"]["policy"]["optimizer"]["state"][bias][name] = value
    with pytest.raises(ConfigError, match=said):
        learner.restore(saved)


@pytest.mark.parametrize("guard", ["off", "on"])
def test_a_rate_that_explodes_leaves_no_checkpoint(guard: str, tmp_path: Path) -> None:
    """The guard says so first, and has no good weights to go back to."""
    settings: dict[str, Any] = {"num_envs": 2, "num_steps": 8, "num_minibatches": 2, "total_timesteps": 32}
    said = nullcontext() if guard == "off" else pytest.warns(UserWarning, match="the weights are not finite")
    with pytest.raises(FloatingPointError), said:
        train("CartPole-v1", learning_rate=3e38, panel="none", run_dir=str(tmp_path), guard=guard, **settings)
    assert not list(tmp_path.rglob("*.safetensors"))
