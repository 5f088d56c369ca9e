"""Any `gymnasium.vector.VectorEnv` as rows, whichever of Gymnasium's three ways it resets by."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from shoal.envs.actions import in_own_dtypes
from shoal.envs.libraries.batched import BatchedEnv
from shoal.envs.libraries.library import Stepped
from shoal.envs.observations import leaves_of
from shoal.envs.rendering import RENDER_MODE, frames_per_s
from shoal.envs.vec_env import Capabilities
from shoal.types import ConfigError, EnvError, Spec, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from shoal.types import Bools, Tree


def make(
    env: str | Callable[..., VectorEnv[Any, Any, Any]],
    num_envs: int,
    *,
    name: str,
    env_kwargs: dict[str, Any],
) -> BatchedEnv:
    """`num_envs` rows of a VectorEnv.

    Args:
        env: a callable that takes `num_envs` and returns a VectorEnv, or an id, made by `gymnasium.make_vec`.
        num_envs: rows.
        name: stands in messages.
        env_kwargs: further keywords of the callable or of the environment.

    Raises:
        ConfigError: it returned something else, other rows, or says nothing of how it resets.
    """
    try:
        if isinstance(env, str):
            made: Any = gym.make_vec(env, num_envs=num_envs, **env_kwargs)
        else:
            inspect.signature(env).bind(num_envs=num_envs, **env_kwargs)
            made = env(num_envs=num_envs, **env_kwargs)
    except gym.error.Error as error:
        raise ConfigError(f"no vector environment {name!r} ({error})") from error
    except TypeError as error:
        raise ConfigError(
            f"{name} is called with num_envs and the environment's keywords, but {error}"
        ) from error
    if not isinstance(made, VectorEnv):
        raise ConfigError(
            f"{name} returned {type(made).__name__}, expected a gymnasium.vector.VectorEnv"
        )
    try:
        return BatchedEnv(VectorRows(made, num_envs, name))
    except BaseException:
        made.close()
        raise


class VectorRows:
    """A VectorEnv as a Library."""

    clip_reward, lives = False, None

    def __init__(self, env: VectorEnv[Any, Any, Any], num_envs: int, name: str) -> None:
        """`env`: closed with this object; `metadata["autoreset_mode"]` says how it resets."""
        if env.num_envs != num_envs:
            raise ConfigError(
                f"{name} made {env.num_envs} environments, asked for {num_envs}"
            )
        mode = env.metadata.get("autoreset_mode")
        if mode is None:
            raise ConfigError(
                f'{name}: set metadata["autoreset_mode"] to a gymnasium.vector.AutoresetMode'
            )
        self.env = env
        self.num_rows = num_envs
        self.mode = AutoresetMode(mode)
        self.capabilities = Capabilities(
            whole_sends=True,
            restartable=True,
            can_save=False,
            can_render=env.render_mode == RENDER_MODE,
            frames_per_s=frames_per_s(env.metadata),
        )
        self.spec = Spec.of(
            name,
            env.single_observation_space,
            env.single_action_space,
            max_episode_steps=getattr(env.spec, "max_episode_steps", None),
            reward_threshold=getattr(env.spec, "reward_threshold", None),
        )
        self._ended = np.zeros(num_envs, np.bool_)

    def reset(self, seeds: Sequence[int | None], rows: Bools) -> Tree:
        """Begins episodes; a part of the rows with Gymnasium's `reset_mask`."""
        options = None if rows.all() else {"reset_mask": rows}
        given = [None if seed is None else seed % 2**63 for seed in seeds]
        first = given[0]
        seed: Any = given
        if all(one is None for one in given):
            seed = None
        elif first is not None and given == list(range(first, first + len(given))):
            # As Gymnasium would count on from it.
            seed = first
        obs = self.env.reset(seed=seed, options=options)[0]
        self._ended[rows] = False
        return self._tree(obs)

    def step(self, action: Tree) -> Stepped:
        """One step of all rows."""
        obs, reward, terminated, truncated, infos = self.env.step(
            in_own_dtypes(self.spec, action)
        )
        obs, only_reset = self._tree(obs), None
        ended, final_obs = np.logical_or(terminated, truncated), None
        if self.mode is AutoresetMode.NEXT_STEP:
            only_reset = self._ended.copy()
            self._ended[:] = ended
        elif ended.any():
            if self.mode is AutoresetMode.SAME_STEP:
                final_obs = self._final(infos, ended)
            else:
                final_obs = map_tree(np.copy, obs)
                obs = self._tree(self.env.reset(options={"reset_mask": ended})[0])
        return Stepped(obs, reward, terminated, truncated, final_obs, only_reset)

    def state(self) -> dict[str, Any]:
        """Nothing: a VectorEnv cannot be saved."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing comes back."""

    def render(self, row: int, obs: Tree) -> NDArray[np.uint8]:
        """What Gymnasium's own `render` gives of the row; ConfigError in another render mode."""
        if self.env.render_mode != RENDER_MODE:
            raise ConfigError(
                f"{self.spec.env_id} does not render in render_mode={self.env.render_mode!r}"
            )
        frames: Any = self.env.render()
        return frames[row]

    def close(self) -> None:
        """Closes it, once."""
        if not getattr(self.env, "closed", False):
            self.env.close()

    def _tree(self, obs: Tree) -> Tree:
        try:
            leaves = leaves_of(self.env.single_observation_space, obs)
            return self.spec.observation.tree([np.asarray(leaf) for leaf in leaves])
        except ValueError as error:
            raise EnvError(
                f"{self.spec.env_id}: the library returned an {error}"
            ) from None

    def _final(self, infos: dict[str, Any], ended: Bools) -> Tree:
        """The last observations, of which only ended rows are read."""
        given = infos.get("final_obs")
        if given is None:
            raise EnvError(
                f'{self.spec.env_id}: episodes ended, but infos have no "final_obs"'
            )
        final: Tree = self.spec.observation.allocate(self.num_rows)
        for row in np.flatnonzero(ended).tolist():
            leaves = leaves_of(self.env.single_observation_space, given[row])
            arrays = self.spec.observation.flat(final)
            for array, leaf in zip(arrays, leaves, strict=True):
                array[row] = leaf
        return final
