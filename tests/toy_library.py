"""A library that batches itself, small enough to be followed by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from shoal.envs.libraries.library import Stepped
from shoal.envs.vec_env import Capabilities
from shoal.types import Bools, Spec


class Lives:
    """Games of two lives: action 1 costs one, every step scores 3; the observation is the steps of the game."""

    clip_reward = True
    capabilities = Capabilities(whole_sends=True, restartable=True)

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self.spec = Spec.of("Lives-v0", spaces.Box(0, 100, (1,), np.float32), spaces.Discrete(2), max_episode_steps=90)
        self.infos: dict[str, Any] = {}
        self.lives, self.clock = np.full(num_rows, 2), np.zeros(num_rows)
        self.seeds: list[int | None] = []

    def reset(self, seeds: Sequence[int | None], rows: Bools) -> Any:
        self.lives[rows], self.clock[rows], self.seeds = 2, 0, list(seeds)
        return self.obs()

    def step(self, action: Any) -> Stepped:
        self.lives -= action
        self.clock += 1
        last, over = self.obs(), self.lives == 0
        obs = self.reset([None] * self.num_rows, over)
        reward = np.full(self.num_rows, 3.0)
        never = np.zeros(self.num_rows, np.bool_)
        return Stepped(obs, reward, over, never, last)

    def state(self) -> dict[str, Any]:
        return {"lives": self.lives.copy(), "clock": self.clock.copy()}

    def restore(self, state: dict[str, Any]) -> Any:
        self.lives[:], self.clock[:] = state["lives"], state["clock"]
        return self.obs()

    def render(self, row: int, obs: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def obs(self) -> Any:
        return self.clock[:, None].astype(np.float32)
