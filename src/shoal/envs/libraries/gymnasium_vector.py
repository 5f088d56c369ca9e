"""Any `gymnasium.vector.VectorEnv` as rows, whichever of Gymnasium's three ways it resets by."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import (
    AsyncVectorEnv,
    AutoresetMode,
    SyncVectorEnv,
    VectorEnv,
)

from shoal.envs.actions import in_own_dtypes
from shoal.envs.factories import hint_of, refuse_instances, register_family
from shoal.envs.lasting import warn_of_lasting
from shoal.envs.libraries.atari import for_vector
from shoal.envs.libraries.batched import BatchedEnv
from shoal.envs.libraries.library import Stepped
from shoal.envs.libraries.returned import RESET, STEP, final_of, parts_of
from shoal.envs.masks import KEY, METHOD, in_observation
from shoal.envs.names import ACTION_NAMES, FEATURE_NAMES, declared_names
from shoal.envs.observations import leaves_of
from shoal.envs.python_env import check_distinct, note_closed, shortest_limit
from shoal.envs.python_env import parts_of as environments_of
from shoal.envs.rendering import RENDER_MODE, frames_per_s
from shoal.envs.told import tell
from shoal.envs.vec_env import Capabilities
from shoal.types import ConfigError, EnvError, Spec, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from shoal.envs.masks import MaskMethod
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
    refuse_instances(env)
    try:
        if isinstance(env, str):
            if env.startswith("ALE/"):
                env_kwargs = for_vector(env, env_kwargs)
            register_family(env)
            made: Any = gym.make_vec(env, num_envs=num_envs, **env_kwargs)
        else:
            inspect.signature(env).bind(num_envs=num_envs, **env_kwargs)
            made = env(num_envs=num_envs, **env_kwargs)
    except gym.error.Error as error:
        raise ConfigError(
            f"no vector environment {name!r} ({error}){hint_of(name)}"
        ) from error
    except TypeError as error:
        raise ConfigError(
            f"{name} is called with num_envs and the environment's keywords, but {error}"
        ) from error
    if not isinstance(made, VectorEnv):
        raise ConfigError(
            f"{name} returned {type(made).__name__}, expected a gymnasium.vector.VectorEnv"
        )
    try:
        rows = VectorRows(made, num_envs, name)
        warn_of_lasting(made, name)
        return BatchedEnv(rows)
    except BaseException:
        made.close()
        raise


class VectorRows:
    """A VectorEnv as a Library."""

    clip_reward, lives = False, None

    def __init__(self, env: VectorEnv[Any, Any, Any], num_envs: int, name: str) -> None:
        """`env`: closed with this object; `metadata["autoreset_mode"]` says how it resets."""
        _check_parts(env, name)
        check_distinct(environments_of(env)[1:], name, "rows")
        if env.num_envs != num_envs:
            raise ConfigError(
                f"{name} made {env.num_envs} environments, asked for {num_envs}"
            )
        mode = env.metadata.get("autoreset_mode")
        try:
            self.mode = AutoresetMode(mode)
        except ValueError:
            raise ConfigError(
                f'{name}: set metadata["autoreset_mode"] to a gymnasium.vector.AutoresetMode, got {mode!r}'
            ) from None
        self.env = env
        self.num_rows = num_envs
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
            max_episode_steps=_limit_of(env),
            reward_threshold=getattr(env.spec, "reward_threshold", None),
            **_names_of(env, name),
        )
        self.infos: dict[str, Any] = {}
        self._seen: Tree = self.spec.observation.allocate(num_envs)
        self._masks_of = None
        if not in_observation(self.spec):
            self._masks_of = _mask_method(env)
        self._ended = np.zeros(num_envs, np.bool_)
        self._reused = Reused(self.spec)

    def reset(self, seeds: Sequence[int | None], rows: Bools) -> Tree:
        """Begins episodes; a part of the rows with Gymnasium's `reset_mask`."""
        options = None if rows.all() else {"reset_mask": rows}
        before = None if rows.all() else map_tree(np.copy, self._seen)
        given = [None if seed is None else seed % 2**63 for seed in seeds]
        first = given[0]
        seed: Any = given
        if all(one is None for one in given):
            seed = None
        elif first is not None and given == list(range(first, first + len(given))):
            # As Gymnasium would count on from it.
            seed = first
        try:
            made: Any = self.env.reset(seed=seed, options=options)
        except (gym.error.Error, TypeError) as error:
            if not isinstance(seed, list):
                raise
            raise ConfigError(
                f"{self.spec.env_id}: its reset took no list of seeds ({error}); seed it with one number"
            ) from error
        obs, infos = parts_of(made, "reset()", RESET, self.spec.env_id)
        self._ended[rows] = False
        self._note_infos(infos)
        self._seen = self._tree(obs)
        if before is not None:
            self._check_kept(before, self._seen, rows)
        return self._seen

    def step(self, action: Tree) -> Stepped:
        """One step of all rows."""
        made: Any = self.env.step(in_own_dtypes(self.spec, action))
        obs, reward, terminated, truncated, infos = parts_of(
            made, "step()", STEP, self.spec.env_id
        )
        obs, only_reset = self._tree(obs), None
        terminated, truncated = self._flags(terminated=terminated, truncated=truncated)
        ended, final_obs = terminated | truncated, None
        if self.mode is AutoresetMode.NEXT_STEP:
            only_reset = self._ended.copy()
            self._ended[:] = ended
        elif ended.any():
            if self.mode is AutoresetMode.SAME_STEP:
                space = self.env.single_observation_space
                final_obs = final_of(infos, ended, self.spec, space)
                self._reused.note(final_obs, self._seen, obs, ended)
            else:
                final_obs = map_tree(np.copy, obs)
                again: Any = self.env.reset(options={"reset_mask": ended})
                seen, begun = parts_of(again, "reset()", RESET, self.spec.env_id)
                obs, infos = self._tree(seen), _joined_masks(infos, begun, ended)
                self._check_kept(final_obs, obs, ended)
        self._note_infos(infos)
        self._seen = obs
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
        note_closed(self.env)
        if not getattr(self.env, "closed", False):
            self.env.close()

    def _note_infos(self, infos: dict[str, Any]) -> None:
        """Keeps the infos of a call, with the masks of the method where the environment has it instead."""
        self.infos = infos
        if self._masks_of is not None and KEY not in infos:
            self.infos = infos | {KEY: self._masks_of()}

    def _check_kept(self, before: Tree, after: Tree, reset: Bools) -> None:
        """EnvError where a reset of some rows began others anew."""
        flat = self.spec.observation.flat
        for old, new in zip(flat(before), flat(after), strict=True):
            changed = (old != new).reshape(self.num_rows, -1).any(axis=1) & ~reset
            if changed.any():
                row = int(np.argmax(changed))
                raise EnvError(
                    f'{self.spec.env_id}: reset(options={{"reset_mask": ...}}) also began row {row} anew, which the '
                    "mask leaves out; it must reset the masked rows alone"
                )

    def _flags(self, **flags: Any) -> list[Bools]:
        """Both flags as bools [B]; EnvError naming one that is something else."""
        read: list[Bools] = []
        for name, given in flags.items():
            array = np.asarray(given)
            if array.dtype.kind not in "biu" or array.shape != (self.num_rows,):
                raise EnvError(
                    f"{self.spec.env_id}: the library returned {name} of type {array.dtype} and shape {array.shape}, "
                    f"expected bools ({self.num_rows},)"
                )
            read.append(array.astype(np.bool_, copy=False))
        return read

    def _tree(self, obs: Tree) -> Tree:
        try:
            leaves = leaves_of(self.env.single_observation_space, obs)
            return self.spec.observation.tree([np.asarray(leaf) for leaf in leaves])
        except ValueError as error:
            raise EnvError(
                f"{self.spec.env_id}: the library returned an {error}"
            ) from None


class Reused:
    """Whether last observations are overwritten before they are handed over.

    In SAME_STEP Gymnasium resets an environment before it copies what the step returned: of one that changes its arrays
    in place, `final_obs` then shows the next episode's first observation.
    """

    ENDS = 3
    """Ends of episodes that tell."""

    def __init__(self, spec: Spec) -> None:
        """`spec`: of the rows."""
        self._spec = spec
        self._ends = 0

    def note(self, final_obs: Tree, before: Tree, obs: Tree, ended: Bools) -> None:
        """Warns where the first ends all were so: the last observation is the next first one, but changed before."""
        if self._ends >= self.ENDS:
            return
        flat, rows = self._spec.observation.flat, len(ended)
        same, moved = ended.copy(), np.zeros(rows, np.bool_)
        for last, old, new in zip(
            flat(final_obs), flat(before), flat(obs), strict=True
        ):
            same &= (last == new).reshape(rows, -1).all(axis=1)
            moved |= (old != new).reshape(rows, -1).any(axis=1)
        if not (same & moved)[ended].all():
            self._ends = self.ENDS
            return
        self._ends += int(ended.sum())
        if self._ends >= self.ENDS:
            tell(
                "buffers",
                f"{self._spec.env_id}: final_obs has been the next episode's first observation at each end so far",
                "an environment that changes its arrays in place must return copies, as Gymnasium resets it before it "
                "copies them, or runs on backend='serial' or 'workers'",
            )


def _check_parts(env: VectorEnv[Any, Any, Any], name: str) -> None:
    """ConfigError naming the first part of Gymnasium's VectorEnv that is not there."""
    wanted = {
        "num_envs": int | np.integer,
        "single_observation_space": gym.Space,
        "single_action_space": gym.Space,
        "metadata": Mapping,
    }
    for part, kind in wanted.items():
        given = getattr(env, part, None)
        if not isinstance(given, kind):
            said = "lacks" if given is None else f"has {given!r} as"
            raise ConfigError(
                f"{name} {said} {part}, which every gymnasium.vector.VectorEnv has; set it in __init__"
            )


def _names_of(env: VectorEnv[Any, Any, Any], name: str) -> dict[str, Any]:
    """What a vector environment calls the numbers of one of its environments."""
    one = SimpleNamespace(
        metadata=env.metadata,
        observation_space=env.single_observation_space,
        action_space=env.single_action_space,
    )
    for what in (FEATURE_NAMES, ACTION_NAMES):
        if hasattr(env, what):
            setattr(one, what, getattr(env, what))
    return declared_names(one, name)


def _limit_of(env: VectorEnv[Any, Any, Any]) -> int | None:
    """The time limit of the environments in a vector environment, or the one that it was registered with."""
    inner: Any = env.unwrapped
    if isinstance(inner, SyncVectorEnv):
        return shortest_limit(inner.envs[0])
    limit = "_max_episode_steps"
    if isinstance(inner, AsyncVectorEnv) and all(inner.call("has_wrapper_attr", limit)):
        return inner.get_attr(limit)[0]
    return getattr(env.spec, "max_episode_steps", None)


def _mask_method(env: VectorEnv[Any, Any, Any]) -> MaskMethod | None:
    """The masks of all rows by the method `action_masks`, of the vector environment or of those in it."""
    inner: Any = env.unwrapped
    for own in (env, inner):
        method = getattr(own, METHOD, None)
        if callable(method):
            return method
    call: Any = getattr(inner, "call", None)
    if not callable(call):
        return None
    try:
        has: Any = call("has_wrapper_attr", METHOD)
    except (AttributeError, NotImplementedError, ConfigError):
        return None
    return partial(_called, call) if all(has) else None


def _called(call: Callable[..., Any]) -> Tree:
    """The masks of the environments in a vector environment, as their infos would be joined."""
    given: Sequence[Tree] = call(METHOD)
    joined = np.full(len(given), None, dtype=object)
    for row, mask in enumerate(given):
        joined[row] = mask
    return joined


def _joined_masks(
    infos: dict[str, Any], begun: dict[str, Any], ended: Bools
) -> dict[str, Any]:
    """The infos of a step, with the masks of a reset in the rows that it began."""
    if KEY not in begun or KEY not in infos:
        return infos | begun

    def join(array: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
        array = array.copy()
        array[ended] = new[ended]
        return array

    names = [name for name in (KEY, f"_{KEY}") if name in infos and name in begun]
    return infos | {name: map_tree(join, infos[name], begun[name]) for name in names}
