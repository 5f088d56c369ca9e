"""Tasks whose best return or value is known: one needs a memory, one never ends, one has nested spaces and masks."""

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


class Sorting(gym.Env[Any, Any]):
    """Twelve parcels: each has a kind and a weight, and goes to a shelf that is open, with a push that fits the weight.

    Observes a Dict with a Tuple inside; acts by a Dict of shelf and push. Shelf 3 is never right and one of the others
    is closed: a closed shelf raises. The right shelf is the parcel's kind, or shelf 2 where that one is closed: worth
    0.5. The push is worth 0.5 less its distance from the weight. Best return 12; shelves at random among the open
    ones are right in 1 of 3, which is worth 2 of 6.
    """

    observation_space = spaces.Dict(
        {
            "action_mask": spaces.Dict({"shelf": spaces.MultiBinary(4)}),
            "parcel": spaces.Tuple((spaces.Discrete(2), spaces.Box(-0.5, 0.5, (1,), np.float32))),
        }
    )
    action_space = spaces.Dict({"push": spaces.Box(-1, 1, (1,), np.float32), "shelf": spaces.Discrete(4)})

    def __init__(self) -> None:
        """No parcel yet."""
        self.kind, self.closed, self.weight, self.step_count = 0, 0, np.zeros(1, np.float32), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The first parcel."""
        super().reset(seed=seed)
        self.step_count = 0
        return self._parcel(), NOTHING

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The parcel is put away and the next one comes."""
        shelf = int(action["shelf"])
        if shelf == self.closed:
            raise ValueError(f"shelf {shelf} is closed")
        right = 2 if self.closed == self.kind else self.kind
        miss = min(0.5, abs(float(action["push"][0] - self.weight[0])))
        self.step_count += 1
        return self._parcel(), 0.5 * (shelf == right) + 0.5 - miss, self.step_count == 12, False, NOTHING

    def _parcel(self) -> dict[str, Any]:
        self.kind, self.closed = int(self.np_random.integers(2)), int(self.np_random.integers(2))
        self.weight = self.np_random.uniform(-0.5, 0.5, 1).astype(np.float32)
        shelves = np.ones(4, np.int8)
        shelves[self.closed] = 0
        return {"action_mask": {"shelf": shelves}, "parcel": (np.int64(self.kind), self.weight.copy())}
