"""Environments that say what each step costs: as a sixth value of `step()`, or in the info."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit

from shoal.envs.agents.games import is_game
from shoal.envs.python_env import close_after, strip
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Callable

STEP = "cost/step"
"""Where rows keep the cost of each step, among the numbers of infos."""
WITH_COST = 6
"""Values of a step: observation, reward, cost, terminated, truncated, info."""


def keys_of(cost_key: str) -> tuple[str, ...]:
    """The numbers of infos that rows keep of costs: none where `cost_key` is empty."""
    return (STEP,) if cost_key else ()


def costing(factory: Callable[[], Any], name: str, cost_key: str) -> Callable[[], Any]:
    """The factory's environments with each step's cost in the info, under the same time limit; `cost_key` "": as are.

    ConfigError: several agents.
    """
    if not cost_key:
        return factory

    def made() -> Any:
        env = factory()
        try:
            if is_game(env):
                raise ConfigError(
                    f"{name} has several agents, whose costs are not read: leave preprocessing.cost_key out"
                )
            inner, limit = strip(env)
            costed = CostEnv(inner, cost_key)
        except BaseException as error:
            close_after(error, [env])
            raise
        return costed if limit is None else TimeLimit(costed, limit)

    return made


class CostEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An environment in Gymnasium's form, whose info holds the cost of each step.

    Safety-Gymnasium's step returns six values, the third of which is the cost; its wrapper for Gymnasium has it in the
    info.
    """

    def __init__(self, env: gym.Env[Any, Any], cost_key: str) -> None:
        """`cost_key`: where infos have it, unless a step returns it."""
        super().__init__(env)
        self._key = cost_key

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """A step; EnvError where it says no cost, or one that is no finite number."""
        made: Any = self.env.step(action)
        if isinstance(made, tuple) and len(made) == WITH_COST:
            obs, reward, cost, terminated, truncated, info = made
        else:
            obs, reward, terminated, truncated, info = made
            if self._key not in info:
                raise EnvError(
                    f"a step's info has no cost under {self._key!r}, only {', '.join(map(str, info)) or 'nothing'}; "
                    "name its key in preprocessing.cost_key"
                )
            cost = info[self._key]
        value = np.asarray(cost)
        if value.ndim or value.dtype.kind not in "fiub" or not np.isfinite(value):
            raise EnvError(f"a step's cost is {cost!r}; it must be a finite number")
        return obs, reward, terminated, truncated, {**info, STEP: float(value)}
