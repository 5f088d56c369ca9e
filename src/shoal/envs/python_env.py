"""What a Python environment may return: it is read into arrays here, or refused with a reason."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from shoal.types import ConfigError, EnvError, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from shoal.types import Layout, Leaf, Spec, Tree


class ObsReader:
    """Copies observations into an array, all rows of a step at once."""

    def __init__(self, space: gym.Space[Any], leaf: Leaf) -> None:
        """`leaf`: the shape and dtype of one row."""
        self._shape, self._dtype = leaf.shape, leaf.dtype
        # An integer space holds its integers in any width that loses none; a Box holds exactly its own dtype.
        self._casting: Any = "no" if isinstance(space, spaces.Box) else "safe"
        self._bounds: tuple[Any, Any] | None = None
        if isinstance(space, spaces.Discrete):
            self._bounds = space.start, space.start + space.n - 1
        elif isinstance(space, spaces.MultiDiscrete):
            self._bounds = space.start, space.start + space.nvec - 1
        elif isinstance(space, spaces.MultiBinary):
            self._bounds = 0, 1

    def read(self, seen: list[Any], out: NDArray[Any]) -> int:
        """Copies seen[i] into out[i]; returns the first i that the space does not hold, or -1."""
        try:
            if self._shape:
                self._concatenate(seen, out)
            else:
                array = np.array(seen)
                if array.shape != out.shape or not np.can_cast(
                    array.dtype, self._dtype, "same_kind"
                ):
                    raise ValueError
                out[...] = array
        except (TypeError, ValueError):
            bad = [i for i, obs in enumerate(seen) if not self.fits(obs)]
            if bad:
                return bad[0]
            for i, obs in enumerate(seen):
                out[i] = obs
        if self._bounds is None:
            return -1
        good = (out >= self._bounds[0]) & (out <= self._bounds[1])
        return (
            -1 if good.all() else int(np.argmin(good.reshape(len(out), -1).all(axis=1)))
        )

    def fits(self, obs: Any) -> bool:
        """Whether the space holds the observation of one row; a Box's bounds are not compared."""
        if self._shape:
            if not isinstance(obs, np.ndarray) or obs.shape != self._shape:
                return False
            good = obs.dtype == self._dtype or np.can_cast(
                obs.dtype, self._dtype, self._casting
            )
        else:
            value = np.asarray(obs)
            good = value.shape == () and np.can_cast(
                value.dtype, self._dtype, "same_kind"
            )
        if not good or self._bounds is None:
            return good
        return bool(np.all(obs >= self._bounds[0]) and np.all(obs <= self._bounds[1]))

    def _concatenate(self, seen: list[Any], out: NDArray[Any]) -> None:
        """One call for all rows. It checks the dtype and all axes but the first, whose lengths are checked before."""
        if set(map(len, seen)) != {self._shape[0]}:
            raise ValueError
        np.concatenate(
            seen, out=out.reshape(-1, *self._shape[1:]), casting=self._casting
        )


def read_rewards(rewards: list[Any]) -> NDArray[np.float64] | int:
    """One number a row as float64, or the first row whose reward is not a number."""
    try:
        array = np.array(rewards)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape == (len(rewards),) and array.dtype.kind in "fiub":
        return array.astype(np.float64, copy=False)
    return next(
        i
        for i, reward in enumerate(rewards)
        if np.ndim(reward) or np.asarray(reward).dtype.kind not in "fiub"
    )


def read_flag(flag: Any) -> bool | None:
    """A flag as a bool, or None when it is not one."""
    if isinstance(flag, (bool, np.bool_)):
        return bool(flag)
    array = np.asarray(flag)
    return bool(array) if array.shape == () and array.dtype.kind in "biu" else None


def read_info(info: dict[str, Any], key: str, where: str) -> float:
    """A declared number of an episode's last info; EnvError when it is missing or not a number."""
    if key not in info:
        near = get_close_matches(key, [str(name) for name in info], n=3)
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else f"it holds {', '.join(map(str, info)) or 'nothing'}"
        )
        raise EnvError(
            f"{where} ended an episode without the declared info key {key!r}; {hint}"
        )
    value = info[key]
    if np.ndim(value) or np.asarray(value).dtype.kind not in "fiub":
        raise EnvError(
            f"{where} gave for the declared info key {key!r} {value!r}, which is not a number"
        )
    return float(value)


def one_by_one(spec: Spec, actions: Tree) -> list[Any]:
    """A batch of actions as a list of single ones; a Discrete's as Python's integers."""
    layout = spec.action
    if not layout.leaves[0].path:
        return (
            actions.tolist()
            if isinstance(spec.action_space, spaces.Discrete)
            else list(actions)
        )
    arrays = layout.flat(actions)
    plain = [
        isinstance(part, spaces.Discrete) for _, part in leaf_spaces(spec.action_space)
    ]
    columns = [
        x.tolist() if whole else list(x) for x, whole in zip(arrays, plain, strict=True)
    ]
    return [layout.tree(list(values)) for values in zip(*columns, strict=True)]


def stacked(layout: Layout, actions: list[Any]) -> Tree:
    """The inverse of `one_by_one`: single actions as a batch, which may be empty."""
    rows = [layout.flat(action) for action in actions]
    return layout.tree(
        [
            np.array([row[i] for row in rows], x.dtype).reshape(len(rows), *x.shape)
            for i, x in enumerate(layout.leaves)
        ]
    )


def is_long(made: Any, count: int) -> bool:
    """Whether `made` holds `count` parts."""
    return hasattr(made, "__len__") and len(made) == count


def make_envs(
    factory: Callable[[], gym.Env[Any, Any]],
    num_envs: int,
    *,
    name: str,
    first_row: int = 0,
) -> list[gym.Env[Any, Any]]:
    """One environment a row; an error names the row, counted from `first_row`, and leaves none open."""
    envs: list[gym.Env[Any, Any]] = []
    try:
        for row in range(first_row, first_row + num_envs):
            try:
                envs.append(factory())
            except Exception as error:
                error.add_note(f"shoal: raised while row {row} of {name} was made")
                raise
    except BaseException:
        for env in envs:
            env.close()
        raise
    return envs


def check_alike(envs: Sequence[gym.Env[Any, Any]], name: str) -> None:
    """ConfigError unless these are environments of one kind, each an object of its own."""
    rows: dict[int, int] = {}
    for row, env in enumerate(envs):
        for what in ("observation_space", "action_space"):
            space = getattr(env, what, None)
            if not isinstance(space, gym.Space):
                raise EnvError(
                    f"{name}: row {row} has no {what}; set it to a gymnasium.spaces.Space in __init__"
                )
            if space != getattr(envs[0], what):
                raise EnvError(
                    f"{name}: row {row} has another {what} than row 0; one VecEnv holds one kind"
                )
        first = rows.setdefault(id(env.unwrapped), row)
        if first != row:
            raise ConfigError(
                f"{name}: rows {first} and {row} are the same object; "
                "the callable must make a new environment each time"
            )


class KeptSpaces:
    """The spaces that rows began with, which may not change from one reset to the next."""

    def __init__(self, envs: list[gym.Env[Any, Any]]) -> None:
        """`envs`: one a row."""
        self._envs = envs
        self._spaces = [(env.observation_space, env.action_space) for env in envs]

    def changed(self, row: int) -> str:
        """What is wrong with the row's spaces now, or nothing."""
        env, spaces_then = self._envs[row], self._spaces[row]
        if (
            env.observation_space is spaces_then[0]
            and env.action_space is spaces_then[1]
        ):
            return ""
        for what, then in zip(
            ("observation_space", "action_space"), spaces_then, strict=True
        ):
            now = getattr(env, what)
            if now != then:
                return f"changed its {what} from {then} to {now}; its spaces must stay as they were after __init__"
        return ""


def strip(env: gym.Env[Any, Any]) -> tuple[gym.Env[Any, Any], int | None]:
    """Takes off Gymnasium's own outermost checks and time limit, which the rows do themselves."""
    limit: int | None = None
    inner: Any = env
    while True:
        if type(inner) is TimeLimit and limit is None:
            limit = vars(inner)["_max_episode_steps"]
        elif type(inner) not in (OrderEnforcing, PassiveEnvChecker):
            return inner, limit
        inner = inner.env
