"""An environment whose steps take time: a drifting point, some of whose steps may last very long."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.registry import make
from tests.bad_envs import Good

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv


class Slow(Good):
    """Steps of `step_s` seconds; step `stuck_at` of an episode lasts as long as the file `stuck` is there."""

    def __init__(self, step_s: float = 0.0, stuck: str = "", stuck_at: int = 5) -> None:
        super().__init__()
        self.step_s, self.stuck, self.stuck_at = step_s, stuck, stuck_at

    def step(self, action: Any) -> Any:
        time.sleep(self.step_s)
        while self.stuck and self.count == self.stuck_at and Path(self.stuck).exists():
            time.sleep(0.05)
        return super().step(action)


class SlowContinuous(Slow):
    """The same, pushed by a real number."""

    def __init__(self, step_s: float = 0.0, stuck: str = "", stuck_at: int = 5) -> None:
        super().__init__(step_s, stuck, stuck_at)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def move(self, action: Any) -> None:
        super().move(float(action[0]) / 2 + 0.5)


def rows(num_envs: int, *, step_s: float = 0.0, stuck: str = "", stuck_at: int = 5) -> VecEnv:
    """So many of them, in this process."""
    return make(partial(Slow, step_s, stuck, stuck_at), num_envs, backend="serial")
