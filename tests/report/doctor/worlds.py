"""Environments with one thing wrong each, from which runs of the doctor's collection were trained."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv


class Limited(CartPoleEnv):
    """CartPole with its time limit."""

    limit = 500

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts an episode."""
        self.steps = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        """Plays a step."""
        obs, reward, terminated, _, info = super().step(action)
        self.steps += 1
        return obs, float(reward), terminated, self.steps >= self.limit, info


class Slow(Limited):
    """Each step takes four milliseconds, as a simulator's or a robot's may."""

    def step(self, action: Any) -> Any:
        """Plays a step."""
        time.sleep(0.004)
        return super().step(action)


class Endless(gym.Env[Any, Any]):
    """A point that is to be held in the middle; nobody ever ends an episode."""

    observation_space = spaces.Box(-10, 10, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts the only episode."""
        super().reset(seed=seed)
        self.at = np.zeros(1, np.float32)
        return self.at.copy(), {}

    def step(self, action: Any) -> Any:
        """Moves the point, and the wind does."""
        self.at = np.clip(self.at + (0.2 * action - 0.1) + self.np_random.normal(0, 0.1, 1), -10, 10)
        self.at = self.at.astype(np.float32)
        return self.at.copy(), 1 - abs(float(self.at[0])), False, False, {}


class Raising(Limited):
    """Breaks after so many steps, as an environment with a fault of its own does."""

    taken = 0

    def step(self, action: Any) -> Any:
        """Plays a step."""
        self.taken += 1
        if self.taken > 700:
            raise RuntimeError("the simulator lost its license")
        return super().step(action)


class Overflowing(Limited):
    """Now and then a reward is far too large for a square in float32."""

    def step(self, action: Any) -> Any:
        """Plays a step."""
        obs, reward, terminated, truncated, info = super().step(action)
        if self.np_random.random() < 0.0004:
            reward = 1e30
        return obs, reward, terminated, truncated, info


class Counts(Limited):
    """CartPole beside three raw sensors that count up to a hundred thousand and tell nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(-np.inf, np.inf, (7,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts an episode."""
        obs, info = super().reset(seed=seed, options=options)
        return self._beside(obs), info

    def step(self, action: Any) -> Any:
        """Plays a step."""
        obs, *rest = super().step(action)
        return self._beside(obs), *rest

    def _beside(self, obs: Any) -> Any:
        counts = self.np_random.integers(0, 100_000, 3)
        return np.concatenate([obs, counts]).astype(np.float32)


class Deaf(Limited):
    """Whatever is done, the observation and the reward are noise: nothing can be learned."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts an episode."""
        super().reset(seed=seed, options=options)
        return self._noise(), {}

    def step(self, action: Any) -> Any:
        """Plays a step."""
        self.steps += 1
        ended = self.np_random.random() < 0.05
        return self._noise(), float(self.np_random.normal()), ended, False, {}

    def _noise(self) -> Any:
        return self.np_random.normal(0, 1, 4).astype(np.float32)


class Doors(gym.Env[Any, Any]):
    """A corridor: three lamps show the way, then comes a door that one of two actions opens, and nothing shows which.

    Each door is opened by the same action until it is passed. Who has no memory passes by trying both at random;
    whoever always takes the more probable one stands before the first door that wants the other.
    """

    observation_space = spaces.Box(0, 1, (5,), np.float32)
    action_space = spaces.Discrete(4)
    steps_of_episode = 100

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Starts before the first lamp."""
        super().reset(seed=seed, options=options)
        self.taken = self.place = 0
        self.wanted = int(self.np_random.integers(4))
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        """Goes on where the action is the wanted one."""
        self.taken += 1
        at_door, right = self.place == 3, int(action) == self.wanted
        if right:
            self.place = (self.place + 1) % 4
            self.wanted = int(self.np_random.integers(2 if self.place == 3 else 4))
        return self._seen(), float(at_door and right), False, self.taken >= self.steps_of_episode, {}

    def _seen(self) -> Any:
        obs = np.zeros(5, np.float32)
        obs[4 if self.place == 3 else self.wanted] = 1
        return obs
