"""What a recorded environment hands over, by hand."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from shoal.memory.recorded import Recorded


class Counter(gym.Env[Any, Any]):
    """Counts in one array that it hands out again and again; ends at 3."""

    observation_space = spaces.Dict({"at": spaces.Box(0, 9, (1,)), "twice": spaces.Discrete(20)})
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.at = np.zeros(1, np.float32)

    def seen(self) -> dict[str, Any]:
        return {"at": self.at, "twice": int(2 * self.at[0])}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.at[:] = 0
        return self.seen(), {}

    def step(self, action: Any) -> Any:
        self.at += 1
        return self.seen(), 10.0 * action, bool(self.at[0] == 3), False, {}


def test_steps_by_hand() -> None:
    """Three steps that end, one that a reset cuts, one that goes on."""
    env = Recorded(Counter())
    env.reset()
    for action in (0, 1, 1):
        env.step(action)
    env.reset()
    env.step(1)
    env.reset()
    env.step(0)
    assert len(env) == 5
    found = env.take()
    assert found["obs"]["at"][:, 0].tolist() == [0, 1, 2, 0, 0]
    assert found["next_obs"]["at"][:, 0].tolist() == [1, 2, 3, 1, 1]
    assert found["next_obs"]["twice"].tolist() == [2, 4, 6, 2, 2]
    assert found["action"].tolist() == [0, 1, 1, 1, 0]
    assert found["reward"].tolist() == [0, 10, 10, 10, 0]
    assert found["terminated"].tolist() == [False, False, True, False, False]
    assert found["truncated"].tolist() == [False, False, False, True, False]
    env.step(1)
    assert env.take()["obs"]["at"].tolist() == [[1.0]]
    with pytest.raises(ValueError, match=r"no step was recorded since the last take"):
        env.take()
