"""One built-in environment as a plain `gymnasium.Env`, for code that knows nothing of rows."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np

from shoal.envs import native
from shoal.types import ConfigError, map_tree, select


def make_env(env_id: str, *, env_kwargs: dict[str, Any] | None = None) -> SingleEnv:
    """A built-in environment as one `gymnasium.Env`; `env_kwargs` sets its parameters.

    Raises:
        ConfigError: it is not built in, or has no such parameter.
    """
    if env_id not in native.ids():
        raise ConfigError(
            f"{env_id!r} is not built in; gymnasium.make makes others. Built in: {', '.join(native.ids())}"
        )
    return SingleEnv(native.make(env_id, 1, env_kwargs=env_kwargs), env_kwargs or {})


class SingleEnv(gym.Env[Any, Any]):
    """One native row. An episode's end is handed over as it is: the next one begins with `reset`."""

    def __init__(self, rows: native.NativeEnv, env_kwargs: dict[str, Any]) -> None:
        """`rows`: one of one agent, closed with this object; `env_kwargs` go into the spec."""
        if rows.num_rows != 1:
            raise ConfigError(
                f"{rows.spec.env_id} has {rows.num_rows} rows; one gymnasium.Env is one row"
            )
        self.rows = rows
        self.observation_space, self.action_space = (
            rows.spec.observation_space,
            rows.spec.action_space,
        )
        self.metadata: dict[str, Any] = {"render_modes": []}
        if rows.spec.env_id in gym.registry:
            self.spec = copy.deepcopy(gym.registry[rows.spec.env_id])
            self.spec.kwargs |= env_kwargs
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins an episode; without a seed the row goes on with its own generator. Options: ConfigError."""
        super().reset(seed=seed)
        if options:
            raise ConfigError(
                f"{self.rows.spec.env_id}: native resets take no options, got {options}"
            )
        self.rows.restart([seed], np.ones(1, np.bool_), held=np.array([self._begun]))
        self._begun = False
        return self._only(self.rows.recv().obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps once; RuntimeError between an episode's end and the next reset, ValueError for a bad action."""
        if self._begun:
            raise RuntimeError(
                f"{self.rows.spec.env_id}: the episode is over; call reset() before the next step"
            )
        self.rows.send(slice(0, 1), np.asarray(action)[None])
        ready = self.rows.recv()
        terminated, truncated = bool(ready.terminated[0]), bool(ready.truncated[0])
        # The row has begun the next episode already.
        self._begun = terminated or truncated
        obs = self._only(ready.final_obs if self._begun else ready.obs)
        return obs, float(ready.reward[0]), terminated, truncated, {}

    def close(self) -> None:
        """Closes the row."""
        self.rows.close()

    def _only(self, obs: Any) -> Any:
        return map_tree(np.copy, select(obs, 0))
