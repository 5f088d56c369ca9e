"""Declared numbers of an environment's infos reach the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

import shoal
from shoal.run.log import read

if TYPE_CHECKING:
    from pathlib import Path


class Distance(gym.Env[Any, Any]):
    """Ends after 4 steps; its last info says how far it came: 8."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.turn = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        return np.zeros(1, np.float32), 1.0, self.turn == 4, False, {"distance": 2.0 * self.turn}


def test_info_keys_reach_the_metrics(tmp_path: Path) -> None:
    """The mean of `distance` over the episodes of each line is 8."""
    settings: dict[str, Any] = {"num_envs": 2, "num_steps": 8, "num_minibatches": 1, "total_timesteps": 64}
    result = shoal.train(Distance, info_keys=("distance",), panel="none", run_dir=str(tmp_path), **settings)
    lines = read(result.path / "metrics.jsonl")
    assert [line["info/distance"] for line in lines] == [8.0] * 4
    assert [line["episode/count"] for line in lines] == [4, 8, 12, 16]
