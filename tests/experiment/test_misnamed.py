"""What a name that is no setting is told that it may have meant."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import pytest

import shoal
from shoal.algos import sac, td3
from shoal.experiment.misnamed import check_names, places_of
from shoal.experiment.options import Options
from shoal.types import ConfigError


class Factory(gym.Env[Any, Any]):
    """An environment with an argument of its own."""

    def __init__(self, jobs: int = 3) -> None:
        self.jobs = jobs


NO_NETWORK = "has none: bring observations to one scale in the environment, by fixed numbers"


@pytest.mark.parametrize(
    ("env", "settings", "told"),
    [
        (
            "CartPole-v1",
            {"normalize_obs": True},
            "no setting 'normalize_obs'; it stands in a table: network={'normalize_obs': True} "
            "(--network.normalize-obs)",
        ),
        (
            "CartPole-v1",
            {"frame_stack": 4},
            "it stands in a table: preprocessing={'frame_stack': 4} (--preprocessing.frame-stack)",
        ),
        (
            "Pendulum-v1",
            {"algo": "ppo_sac", "share": True},
            "explorers={'network': {'share': True}} (--explorers.network.share)",
        ),
        ("Pendulum-v1", {"algo": "sac", "normalize_obs": True}, f"the network of sac {NO_NETWORK}"),
        ("Pendulum-v1", {"algo": "td3", "norm_obs": True}, f"the network of td3 {NO_NETWORK}"),
        ("Pendulum-v1", {"algo": "td3", "network": {"normalize_obs": True}}, f"this network {NO_NETWORK}"),
        ("CartPole-v1", {"norm_obs": True}, "Stable-Baselines3's norm_obs is here: network={'normalize_obs': True}"),
        (
            "Pendulum-v1",
            {"algo": "td3", "num_minibatches": 4},
            "no setting 'num_minibatches'; it is a setting of other algorithms, not of td3: num_minibatches of grpo, ",
        ),
        ("Pendulum-v1", {"algo": "td3", "num_minibatches": 4}, "Nearest to it in td3: batch_size"),
        ("Pendulum-v1", {"algo": "sac", "update_epochs": 4}, "Nearest to it in sac: replay.samples_per_insert"),
        ("CartPole-v1", {"samples_per_insert": 4}, "not of ppo: replay.samples_per_insert of dqn, "),
        ("CartPole-v1", {"seeds": 3}, "`for seed in range(1, 4): shoal.train(..., seed=seed)`, or use"),
        (Factory, {"jobs": 3}, "no setting 'jobs'; it is an argument of Factory: env_kwargs={'jobs': 3}"),
        ("CartPole-v1", {"jobs": "x"}, "what the environment takes is given as env_kwargs={'jobs': 'x'}"),
        ("CartPole-v1", {"num_env": 3}, "no setting 'num_env'; did you mean num_envs"),
        ("CartPole-v1", {"normalise_obs": True}, "normalise_obs is called normalize_obs now"),
    ],
)
def test_what_is_told(env: Any, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        shoal.train(env, panel="none", **settings)


def test_owners_are_those_that_have_it() -> None:
    with pytest.raises(ConfigError) as caught:
        check_names({"policy_noise": 0.1}, Options, sac)
    assert "policy_noise of td3" in str(caught.value)
    check_names({"policy_noise": 0.1, "num_envs": 4}, Options, td3)


def test_places() -> None:
    assert list(places_of(td3.Config, "hidden")) == ["network.hidden"]
    assert list(places_of(td3.Config, "gamma")) == ["gamma"]
    assert list(places_of(td3.Config, "normalize_obs")) == []
