"""Environments that can be broken while they run: the failures of benchmarks/guard.py, for every library alike.

This runs inside a peer's virtual environment too, so it needs nothing but Gymnasium and NumPy.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

IN_ENV = ("nan_reward", "reward_sign", "obs_freeze", "reward_scale", "obs_swapped", "dead_actuator")
SLEEP_S = 0.001
"""What a step costs where one worker is to become slow."""


@dataclass(slots=True)
class Fault:
    """What is wrong with the environments of this process now: a name of IN_ENV, or nothing."""

    name: str = ""


fault = Fault()


class Breakable(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that `fault` breaks."""

    frozen: Any = None
    count = 0

    def __init__(self, env: gym.Env[Any, Any], *, slow_after: int = 0, slow_below: int = 0) -> None:
        """`slow_after`: steps after which each takes ten times as long, where its seed was below the other; 0: none."""
        super().__init__(env)
        self.slow_after, self.slow_below = slow_after, slow_below
        self.slow = False

    def step(self, action: Any) -> Any:
        """A step, with what is wrong."""
        self.count += 1
        if self.slow_after:
            time.sleep(SLEEP_S * (10 if self.slow and self.count > self.slow_after else 1))
        if fault.name == "dead_actuator":
            action = 0
        obs, reward, terminated, truncated, info = self.env.step(action)
        reward = float(reward)
        match fault.name:
            case "nan_reward":
                reward = math.nan
            case "reward_sign":
                reward = -reward
            case "reward_scale":
                reward *= 1000
            case _:
                pass
        return self._seen(obs), reward, terminated, truncated, info

    def reset(self, **given: Any) -> Any:
        """A reset, whose observation freezes too."""
        seed = given.get("seed")
        self.slow = self.slow if seed is None else seed < self.slow_below
        obs, info = self.env.reset(**given)
        return self._seen(obs), info

    def _seen(self, obs: Any) -> Any:
        if fault.name == "obs_swapped":
            return obs[::-1].copy()
        if fault.name != "obs_freeze":
            self.frozen = None
            return obs
        if self.frozen is None:
            self.frozen = obs
        return self.frozen


def breakable(env: str) -> gym.Env[Any, Any]:
    """An environment that can be broken; its spaces are wide enough for what that gives."""
    made = Breakable(gym.make(env))
    space = made.observation_space
    made.observation_space = gym.spaces.Box(-math.inf, math.inf, space.shape, np.float32)
    return made
