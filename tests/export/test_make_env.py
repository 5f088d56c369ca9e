"""One built-in environment as a `gymnasium.Env`: it passes the checks of Gymnasium and SB3, and equals Gymnasium."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common import env_checker

import shoal
from shoal.envs import native
from shoal.types import ConfigError

ALONE = [env_id for env_id in native.ids() if native.spec_of(env_id).num_agents == 1]


@pytest.mark.parametrize("env_id", ALONE)
@pytest.mark.filterwarnings("ignore:.*A Box observation space (maximum|minimum) value is .*infinity")
@pytest.mark.filterwarnings("ignore:.*For Box action spaces, we recommend using a symmetric")
@pytest.mark.filterwarnings(
    "ignore:.*Not able to test alternative render modes due to the environment not having a spec"
)
@pytest.mark.filterwarnings("ignore:.*No render modes was declared in the environment")
def test_gymnasiums_check_passes(env_id: str) -> None:
    """Spaces, seeds, types and order."""
    env = shoal.make_env(env_id)
    check_env(env, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("env_id", ALONE)
@pytest.mark.filterwarnings("ignore:.*we recommend you to use a symmetric and normalized Box action space")
def test_stable_baselines3s_check_passes(env_id: str) -> None:
    """The same, as another library asks."""
    env_checker.check_env(shoal.make_env(env_id))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_it_equals_gymnasium(env_id: str) -> None:
    """Three episodes from the same seed, the second and third without one."""
    ours, theirs = shoal.make_env(env_id), gym.make(env_id)
    rng = np.random.default_rng(0)
    action: Any = 0
    for seed in (3, None, None):
        left, right = ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0]
        over = False
        while not over:
            assert left.tolist() == right.tolist()
            action = theirs.action_space.sample() if env_id == "Pendulum-v1" else int(rng.integers(2))
            left, *mine, _ = ours.step(action)
            right, *expected, _ = theirs.step(action)
            assert mine == [float(expected[0]), *expected[1:]]
            over = mine[1] or mine[2]
        assert left.tolist() == right.tolist()
    with pytest.raises(RuntimeError, match="the episode is over; call reset"):
        ours.step(action)


def test_what_cannot_work_is_refused() -> None:
    """Not built in, unknown parameters, options, actions outside."""
    with pytest.raises(ConfigError, match=r"'Blackjack-v1' is not built in; gymnasium\.make makes others"):
        shoal.make_env("Blackjack-v1")
    with pytest.raises(ConfigError, match="has no parameter 'gravty'"):
        shoal.make_env("Pendulum-v1", env_kwargs={"gravty": 1})
    env = shoal.make_env("CartPole-v1", env_kwargs={"max_episode_steps": 5})
    with pytest.raises(ConfigError, match="native resets take no options"):
        env.reset(options={"low": 0})
    env.reset(seed=1)
    with pytest.raises(ValueError, match="outside"):
        env.step(2)
