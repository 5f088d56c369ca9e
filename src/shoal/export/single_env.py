"""One built-in environment as a plain `gymnasium.Env`, for code that knows nothing of rows."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from shoal.envs import native, packages
from shoal.types import ConfigError, map_tree, select
from shoal.types.calls import worded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from shoal.types import Tree


@worded()
def make_env(env_id: str, *, env_kwargs: dict[str, Any] | None = None) -> SingleEnv:
    """A built-in environment as one `gymnasium.Env`; `env_kwargs` sets its parameters.

    Raises:
        ConfigError: it is not built in, or has no such parameter.
    """
    if not packages.has(env_id):
        raise ConfigError(
            f"{env_id!r} is not built in; gymnasium.make makes others. Built in: {', '.join(native.ids())}"
        )
    return SingleEnv(native.make(env_id, 1, env_kwargs=env_kwargs), env_kwargs or {})


class SingleEnv(gym.Env[Any, Any]):
    """One native row. An episode's end is handed over as it is: the next one begins with `reset`."""

    def __init__(self, rows: native.NativeEnv, env_kwargs: Mapping[str, Any]) -> None:
        """`rows`: one of one agent, closed with this object; `env_kwargs` go into the spec."""
        spec = rows.spec
        if rows.num_rows != 1:
            raise ConfigError(
                f"{spec.env_id} has {rows.num_rows} rows; one gymnasium.Env is one row"
            )
        self.rows = rows
        self.observation_space = spec.observation_space
        self.action_space = spec.action_space
        self.metadata: dict[str, Any] = {"render_modes": []}
        if spec.env_id in gym.registry:
            self.spec = copy.deepcopy(gym.registry[spec.env_id])
            self.spec.kwargs.update(env_kwargs)
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tree, dict[str, Any]]:
        """Begins an episode; without a seed the row goes on with its own generator. Options: ConfigError."""
        super().reset(seed=seed)
        held = np.array([self._begun])
        self.rows.restart([seed], np.ones(1, np.bool_), held=held, options=options)
        self._begun = False
        return _only_row(self.rows.recv().obs), {}

    def step(self, action: ArrayLike) -> tuple[Tree, float, bool, bool, dict[str, Any]]:
        """Steps once; RuntimeError between an episode's end and the next reset, ValueError for a bad action."""
        if self._begun:
            raise RuntimeError(
                f"{self.rows.spec.env_id}: the episode is over; call reset() before the next step"
            )
        self.rows.send(slice(0, 1), np.asarray(action)[None])
        ready = self.rows.recv()
        reward = float(ready.reward[0])
        terminated, truncated = bool(ready.terminated[0]), bool(ready.truncated[0])
        # The row has begun the next episode already.
        self._begun = terminated or truncated
        obs = _only_row(ready.final_obs if self._begun else ready.obs)
        return obs, reward, terminated, truncated, {}

    def close(self) -> None:
        """Closes the row."""
        self.rows.close()


def _only_row(obs: Tree) -> Tree:
    return map_tree(np.copy, select(obs, 0))
