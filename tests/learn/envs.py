"""Two tasks whose best return or value is known: one needs a memory, one never ends by itself."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

NOTHING: dict[str, Any] = {}


class Recall(gym.Env[Any, Any]):
    """A cue, -1 or 1, is seen at the first step only; at the last one it must be answered by action 0 or 1.

    Observes (cue or 0, 1 at the last step); a right answer is worth 1. Without a memory nothing beats chance, 1/2.
    """

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, delay: int = 4) -> None:
        """`delay`: steps between the cue and the question, less one."""
        self.delay, self.cue, self.step_count = delay, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draws the next cue."""
        super().reset(seed=seed)
        self.step_count, self.cue = 0, int(self.np_random.integers(2))
        return np.array([2 * self.cue - 1, 0], np.float32), NOTHING

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Only the last action counts."""
        asked = self.step_count == self.delay
        self.step_count += 1
        right = asked and int(action) == self.cue
        return np.array([0, self.step_count == self.delay], np.float32), float(right), asked, False, NOTHING


class Forever(gym.Env[Any, Any]):
    """Always the same observation and reward 1; only a time limit cuts it: its value is 1 / (1 - gamma)."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, limit: int = 10) -> None:
        """`limit`: steps until the truncation."""
        self.limit, self.step_count = limit, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts the clock."""
        super().reset(seed=seed)
        self.step_count = 0
        return np.ones(1, np.float32), NOTHING

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One more reward."""
        self.step_count += 1
        return np.ones(1, np.float32), 1.0, False, self.step_count == self.limit, NOTHING
