"""Last observations that are not finite: refused as before, or the one before stands in where an episode terminated."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pettingzoo import ParallelEnv

from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv

pytestmark = pytest.mark.usefixtures("warm_workers")

BOX = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
LAST = Preprocessing(final_nan="last_finite")
BOTH = slice(0, 2)


def seen_at(step: int, bad: float = 0.0) -> Any:
    return np.array([step, bad], np.float32)


class Falls(gym.Env[Any, Any]):
    """Ends its third step with an observation that is not finite."""

    observation_space, action_space = BOX, gym.spaces.Discrete(2)

    def __init__(self, bad: float = np.nan, *, terminated: bool = True, reward: float = 1.0) -> None:
        self.bad, self.terminated, self.reward = bad, terminated, reward

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return seen_at(0), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        if self.count < 3:
            return seen_at(self.count), 1.0, False, False, {}
        return seen_at(3, self.bad), self.reward, self.terminated, not self.terminated, {}


class Pair(ParallelEnv[str, Any, Any]):
    """Two agents, who fall together."""

    metadata = {"name": "pair"}  # noqa: RUF012
    possible_agents = ["a", "b"]  # noqa: RUF012

    def observation_space(self, agent: str) -> Any:
        return BOX

    def action_space(self, agent: str) -> Any:
        return Falls.action_space

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents, self.count = list(self.possible_agents), 0
        return self.all(seen_at(0)), self.all({})

    def step(self, actions: Any) -> Any:
        self.count += 1
        over = self.count == 3
        made = seen_at(self.count, np.nan if over else 0.0)
        result = self.all(made), self.all(1.0), self.all(over), self.all(False), self.all({})
        if over:
            self.agents = []
        return result

    def all(self, value: Any) -> dict[str, Any]:
        return dict.fromkeys(self.possible_agents, value)


def vector(num_envs: int, mode: AutoresetMode, **kwargs: Any) -> Any:
    return SyncVectorEnv([partial(Falls, **kwargs)] * num_envs, autoreset_mode=mode)


MODES = {mode.value: partial(vector, mode=mode) for mode in AutoresetMode}
SOURCES: dict[str, tuple[Any, int, str]] = {
    "serial": (Falls, 2, "serial"),
    "workers": (Falls, 2, "workers"),
    "agents": (Pair, 1, "serial"),
    **{name: (made, 2, "vector") for name, made in MODES.items()},
}


def started(name: str, preprocessing: Preprocessing | None = None, **kwargs: Any) -> VecEnv:
    env, count, backend = SOURCES[name]
    rows = make(env, count, backend=backend, preprocessing=preprocessing, env_kwargs=kwargs)
    rows.reset(0)
    rows.recv()
    return rows


def step(rows: VecEnv) -> Any:
    rows.send(BOTH, np.zeros(2, np.int64))
    return rows.recv()


@pytest.mark.parametrize("name", SOURCES)
def test_the_last_finite_observation_stands_in(name: str) -> None:
    """That of the second step, at the end of each episode; rewards and lengths are the environment's own."""
    rows = started(name, LAST)
    for _ in range(2):
        while not (ready := step(rows)).terminated.any():
            assert np.isfinite(ready.obs).all()
        assert ready.final_obs.tolist() == [[2, 0]] * 2
        assert (ready.episode_return.tolist(), ready.episode_length.tolist()) == ([3, 3], [3, 3])
    rows.close()


def test_a_stack_of_frames_ends_with_it_too() -> None:
    rows = started("serial", Preprocessing(final_nan="last_finite", frame_stack=2), bad=np.inf)
    while not (ready := step(rows)).terminated.any():
        pass
    assert ready.final_obs[0].tolist() == [[2, 0], [2, 0]]


@pytest.mark.parametrize("name", SOURCES)
def test_it_is_refused_unless_asked_for(name: str) -> None:
    """And the message says what would take it."""
    rows = started(name)
    step(rows)
    step(rows)
    with pytest.raises(EnvError, match=r"observation \[ *3\.? +nan\].*preprocessing\.final_nan='last_finite'"):
        step(rows)
    rows.close()


@pytest.mark.parametrize("name", ["serial", *MODES])
@pytest.mark.parametrize("preprocessing", [None, LAST])
def test_a_truncated_episode_needs_its_last_observation(name: str, preprocessing: Any) -> None:
    """Its value is what the return goes on with."""
    rows = started(name, preprocessing, terminated=False)
    step(rows)
    step(rows)
    with pytest.raises(EnvError, match=r"observation \[ *3\.? +nan\]") as caught:
        step(rows)
    assert "final_nan" not in str(caught.value)


@pytest.mark.parametrize("name", ["serial", *MODES])
def test_a_reward_must_be_finite(name: str) -> None:
    rows = started(name, LAST, reward=np.nan)
    step(rows)
    step(rows)
    with pytest.raises(EnvError, match="returned the reward nan"):
        step(rows)


def test_where_it_cannot_apply() -> None:
    with pytest.raises(ConfigError, match="the native CartPole-v1 gives finite numbers alone"):
        make("CartPole-v1", 1, preprocessing=LAST)
    with pytest.raises(ConfigError, match="observes no floats"):
        make("FrozenLake-v1", 1, backend="serial", preprocessing=LAST)
    with pytest.raises(ConfigError, match="final_nan must be raise or last_finite, got 'zero'"):
        Preprocessing(final_nan="zero")  # pyright: ignore[reportArgumentType]
