"""Nested observations in native code: what torch computes of them, acting and learning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import shoal
from shoal.envs.observed import FLAGS
from shoal.envs.registry import make
from shoal.learn.acting import Acting, PlanActor, make_actor
from shoal.learn.lowering import lower
from shoal.learn.weights import pack
from shoal.nets.network import QNet
from shoal.nets.policy import Network, make_policy
from shoal.nets.q_network import make_q_network
from shoal.types import map_tree

if TYPE_CHECKING:
    from pathlib import Path


class Parcel(gym.Env[Any, Any]):
    """All kinds of arrays in one observation: floats, bytes, truth values, choices; a mask shuts one action."""

    action_space = spaces.Discrete(3, start=1)
    observation_space = spaces.Dict(
        place=spaces.Box(-50, 50, (2,), np.float64),
        tiles=spaces.Box(0, 255, (2, 2, 1), np.uint8),
        inside=spaces.Tuple([spaces.Discrete(4, start=2), spaces.MultiDiscrete([2, 3])]),
        flags=spaces.Box(0, 1, (3,), FLAGS),
        action_mask=spaces.MultiBinary(3),
    )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.turn = 0
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        seen = self.seen()
        return seen, float(action) + seen["place"][0], self.turn == 5, False, {}

    def seen(self) -> Any:
        drawn = self.np_random
        mask = np.ones(3, np.int8)
        mask[drawn.integers(3)] = 0
        return {
            "place": drawn.normal(3, 20, 2).clip(-50, 50),
            "tiles": drawn.integers(0, 256, (2, 2, 1), dtype=np.uint8),
            "inside": (drawn.integers(4) + 2, drawn.integers([2, 3])),
            "flags": drawn.random(3) < 0.2,
            "action_mask": mask,
        }


def observed(count: int) -> tuple[Any, Any]:
    """The specification, and observations of `count` rows."""
    env = make(Parcel, count)
    env.reset(7)
    obs = map_tree(np.copy, env.recv().obs)
    spec = env.spec
    env.close()
    return spec, obs


@pytest.mark.parametrize("recurrent", ["none", "gru", "lstm"])
@pytest.mark.parametrize("normalize", [False, True])
def test_acting_is_that_of_torch(recurrent: Any, *, normalize: bool) -> None:
    """Log-probabilities, values and states of several steps, with statistics that no leaf has by default."""
    spec, obs = observed(6)
    policy: Any = make_policy(spec, Network(hidden=(8,), recurrent=recurrent, normalize_obs=normalize), 3)
    if normalize:
        policy.encoder.observe(map_tree(torch.from_numpy, obs))
    native, plain = (make_actor(policy, spec, 6, Acting(5, native=native)) for native in (True, False))
    assert isinstance(native, PlanActor)
    assert not isinstance(plain, PlanActor)
    every, mask = slice(0, 6), obs["action_mask"].astype(np.bool_)
    for step in range(3):
        start = np.arange(6) % 3 == step
        first, second = (actor.act(obs, start, every, action_mask=mask) for actor in (native, plain))
        np.testing.assert_array_equal(first.env_action, second.env_action)
        for name in ("log_prob", "value"):
            given, expected = getattr(first, name), getattr(second, name)
            np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)
    some = np.array([4, 1])
    chosen = map_tree(lambda x: x[some], obs)
    parts = (actor.value(chosen, np.zeros(2, np.bool_), some) for actor in (native, plain))
    np.testing.assert_allclose(*parts, rtol=1e-5, atol=1e-6)


def test_a_q_network_gives_the_values_of_torch() -> None:
    spec, obs = observed(5)
    network = make_q_network(spec, QNet(hidden=(8,), normalize_obs=True), 1)
    tensors = map_tree(torch.from_numpy, obs)
    network.encoder.observe(tensors)
    plan = lower(network, spec, pack(network), num_threads=1, act_block=64, grad_shards=1)
    assert plan is not None
    torch.testing.assert_close(plan.outputs(tensors).value, network(tensors, None, None).value)


@pytest.mark.parametrize(
    ("algo", "recurrent"), [("ppo", "none"), ("ppo", "gru"), ("a2c", "lstm"), ("impala", "none"), ("dqn", "none")]
)
def test_learning_is_that_of_torch(run_dir: Path, algo: str, recurrent: Any) -> None:
    """Two updates of the same rollouts: weights and statistics agree within rounding."""
    settings: dict[str, Any] = {"num_envs": 4, "num_steps": 8, "total_timesteps": 64}
    if algo == "ppo":
        settings |= {"num_minibatches": 2, "update_epochs": 2}
    if algo == "dqn":
        settings["replay"] = {"learning_starts": 32}
    network = {"hidden": [8], "normalize_obs": True}
    if algo != "dqn":
        network["recurrent"] = recurrent
    runs: list[dict[str, Any]] = []
    for native in (True, False):
        run = shoal.train(
            Parcel,
            algo=algo,
            seed=2,
            run_dir=run_dir / str(native),
            panel="none",
            native=native,
            network=network,
            final_episodes=0,
            **settings,
        )
        runs.append(dict(run.policy.state_dict()))
    first, second = runs
    assert first.keys() == second.keys()
    for name, values in first.items():
        torch.testing.assert_close(values, second[name], rtol=1e-4, atol=1e-5, msg=name)
