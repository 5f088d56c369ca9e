"""Bits that are to be flipped to those of a goal (Andrychowicz et al. 2017, section 3.1)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Flip(gym.Env[Any, Any]):
    """`size` bits, one flipped a step; -1 a step until they are the goal's, as many steps as bits."""

    def __init__(self, size: int = 10) -> None:
        self.size = size
        bits = spaces.Box(0, 1, (size,), np.float32)
        self.observation_space = spaces.Dict({"achieved_goal": bits, "desired_goal": bits, "observation": bits})
        self.action_space = spaces.Discrete(size)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.bits, self.goal = self.np_random.integers(2, size=(2, self.size)).astype(np.float32)
        self.left = self.size
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Any]:
        self.bits[int(action)] = 1 - self.bits[int(action)]
        self.left -= 1
        terminated = bool(self.compute_terminated(self.bits, self.goal, {}))
        reward = float(self.compute_reward(self.bits, self.goal, {}))
        return self._seen(), reward, terminated, not self.left and not terminated, {}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return np.where(self.compute_terminated(achieved, desired, info), 0.0, -1.0)

    def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> Any:
        return (achieved == desired).all(-1)

    def _seen(self) -> dict[str, Any]:
        return {"achieved_goal": self.bits.copy(), "desired_goal": self.goal.copy(), "observation": self.bits.copy()}
