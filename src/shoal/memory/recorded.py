"""Recorded: a Gymnasium environment that keeps its steps, so that a run's memory can have them."""

from __future__ import annotations

import copy
from typing import Any, SupportsFloat, TypeAlias

import gymnasium as gym
import numpy as np

from shoal.types import map_tree

Env: TypeAlias = "gym.Env[Any, Any]"
Step: TypeAlias = "tuple[Any, Any, float, Any, bool, bool]"
NAMES = ("obs", "action", "reward", "next_obs", "terminated", "truncated")


class Recorded(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps what is done and what comes of it until `take` is called: `run.memory.insert(**env.take())`.

    A machine behind Gymnasium's interface, or a simulator that something else drives. Where `reset` cuts an episode,
    its last step is truncated.
    """

    def __init__(self, env: Env) -> None:
        """Records every step of `env` from now on."""
        super().__init__(env)
        self._steps: list[Step] = []
        self._obs: Any = None

    def __len__(self) -> int:
        """Steps that `take` would give."""
        return len(self._steps)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        if self._steps:
            obs, done, reward, came_to, terminated, truncated = self._steps[-1]
            cut = truncated or not terminated
            self._steps[-1] = (obs, done, reward, came_to, terminated, cut)
        obs, info = self.env.reset(seed=seed, options=options)
        self._obs = copy.deepcopy(obs)
        return obs, info

    def step(
        self, action: Any
    ) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Does it, and keeps copies of what it came to."""
        done = copy.deepcopy(action)
        obs, reward, terminated, truncated, info = self.env.step(action)
        came_to = copy.deepcopy(obs)
        step = (
            self._obs,
            done,
            float(reward),
            came_to,
            bool(terminated),
            bool(truncated),
        )
        self._steps.append(step)
        self._obs = came_to
        return obs, reward, terminated, truncated, info

    def take(self) -> dict[str, Any]:
        """The steps since the last call, as `insert` takes them: arrays [T, ...] by their names; and forgets them.

        In the middle of an episode too, which then goes on in the next call. ValueError where there is no step.
        """
        if not self._steps:
            raise ValueError(
                "no step was recorded since the last take(); look at len(env) before"
            )
        steps, self._steps = self._steps, []
        columns = zip(*steps, strict=True)
        return {
            name: map_tree(lambda *parts: np.stack(parts), *column)
            for name, column in zip(NAMES, columns, strict=True)
        }
