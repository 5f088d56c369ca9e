"""What a Python environment may return: it is read into arrays here, or refused with a reason."""

from __future__ import annotations

import os
from collections.abc import Sized
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar
from weakref import WeakValueDictionary

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from shoal.envs.bounds import bounds_of
from shoal.envs.forks import end_if_forked
from shoal.envs.outputs import FEWER
from shoal.types import (
    RAISED,
    ConfigError,
    EnvError,
    check_room,
    refuse_leaving,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.types import Leaf, Tree

ENV_BYTES = 1024
"""A Python object and what is kept beside it take so many bytes at least."""
CLOSED: WeakValueDictionary[int, object] = WeakValueDictionary()
"""The environments that were closed here and are still held by somebody, by their id()."""
NUMBERS = "fiub"
"""The kinds of NumPy's dtypes that count as numbers."""


class ObsReader:
    """Copies observations into an array, all rows of a step at once."""

    def __init__(self, space: gym.Space[Any], leaf: Leaf) -> None:
        """`leaf`: the shape and dtype of one row."""
        self._shape, self._dtype = leaf.shape, leaf.dtype
        # An integer space holds integers of any width, a Box exactly arrays of its own dtype; both hold lists and what
        # offers itself as an array.
        is_box = isinstance(space, spaces.Box)
        self._casting: Literal["no", "safe"] = "no" if is_box else "safe"
        self._bounds: tuple[Any, Any] | None = None
        if not is_box:
            self._bounds = bounds_of(space)

    def read(self, seen: list[Tree], out: NDArray[Any]) -> int:
        """Copies seen[i] into out[i]; returns the first i that the space does not hold, or -1."""
        try:
            if self._shape:
                self._concatenate(seen, out)
            else:
                self._convert(seen, out)
        except (TypeError, ValueError, RuntimeError):
            for i, obs in enumerate(seen):
                if not self.fits(obs):
                    return i
            for i, obs in enumerate(seen):
                out[i] = obs
        if self._bounds is None:
            return -1
        good = (out >= self._bounds[0]) & (out <= self._bounds[1])
        if good.all():
            return -1
        return int(np.argmin(good.reshape(len(out), -1).all(axis=1)))

    def fits(self, obs: Tree) -> bool:
        """Whether the space holds the observation of one row; a Box's bounds are not compared."""
        try:
            value = np.asarray(obs)
        except (TypeError, ValueError, RuntimeError):  # lists of unequal lengths
            return False
        if value.shape != self._shape or value.dtype.kind not in NUMBERS:
            return False
        if isinstance(obs, np.ndarray) and self._bounds is None and self._shape:
            return value.dtype == self._dtype
        if not _keeps(value, self._dtype):
            return False
        if self._bounds is None:
            return True
        low, high = self._bounds
        return bool(np.all(value >= low) and np.all(value <= high))

    def _concatenate(self, seen: list[Tree], out: NDArray[Any]) -> None:
        """One call for all rows. It checks the dtype and all axes but the first, whose lengths are checked before."""
        if set(map(len, seen)) != {self._shape[0]}:
            raise ValueError
        flat = out.reshape(-1, *self._shape[1:])
        np.concatenate(seen, out=flat, casting=self._casting)

    def _convert(self, seen: list[Tree], out: NDArray[Any]) -> None:
        """Numbers of all rows; ValueError where one is none, or of a kind that the space does not hold."""
        array = np.array(seen)
        fits = np.can_cast(array.dtype, self._dtype, "same_kind")
        if array.shape != out.shape or not fits:
            raise ValueError
        out[...] = array


def _keeps(value: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether `dtype` holds these numbers: integers all of them, floats rounded."""
    if dtype.kind not in "iu":
        return np.can_cast(value.dtype, dtype, "same_kind")
    if value.dtype.kind not in "biu":
        return False
    info = np.iinfo(dtype)
    return not value.size or bool(value.min() >= info.min and value.max() <= info.max)


def read_rewards(rewards: Sequence[object]) -> NDArray[np.float64] | int:
    """One number a row as float64, or the first row whose reward is not a number."""
    try:
        array = np.array(rewards)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape == (len(rewards),) and array.dtype.kind in NUMBERS:
        return array.astype(np.float64, copy=False)
    return next(i for i, reward in enumerate(rewards) if not _is_number(reward))


def read_flag(flag: object) -> bool | None:
    """A flag as a bool, or None when it is not one."""
    if isinstance(flag, (bool, np.bool_)):
        return bool(flag)
    array = np.asarray(flag)
    if array.shape == () and array.dtype.kind in "biu":
        return bool(array)
    return None


def read_info(info: Mapping[str, Any], key: str, where: str) -> float:
    """A declared number of an episode's last info; EnvError when it is missing or not a number."""
    if key not in info:
        near = get_close_matches(key, [str(name) for name in info], n=3)
        hint = f"did you mean {', '.join(near)}?"
        if not near:
            hint = f"it holds {', '.join(map(str, info)) or 'nothing'}"
        raise EnvError(
            f"{where} ended an episode without the declared info key {key!r}; {hint}"
        )
    value = info[key]
    if not _is_number(value):
        raise EnvError(
            f"{where} gave for the declared info key {key!r} {value!r}, which is not a number"
        )
    return float(value)


def _is_number(value: object) -> bool:
    array = np.asarray(value)
    return array.ndim == 0 and array.dtype.kind in NUMBERS


def is_long(made: object, count: int) -> bool:
    """Whether `made` holds `count` parts."""
    return isinstance(made, Sized) and len(made) == count


def make_envs(
    factory: Callable[[], gym.Env[Any, Any]],
    num_envs: int,
    *,
    name: str,
    first_row: int = 0,
) -> list[gym.Env[Any, Any]]:
    """One environment a row; an error names the row, counted from `first_row`, and leaves none open."""
    envs: list[gym.Env[Any, Any]] = []
    check_room(ENV_BYTES * num_envs, f"{num_envs:,} rows of {name}", FEWER)
    try:
        for row in range(first_row, first_row + num_envs):
            pid, where = os.getpid(), f"the making of row {row} of {name}"
            try:
                envs.append(factory())
                end_if_forked(pid, where)
            except RAISED as error:
                end_if_forked(pid, where)
                refuse_stop(error, where)
                error.add_note(f"shoal: raised while row {row} of {name} was made")
                raise
    except BaseException as error:
        close_after(error, envs)
        raise
    return envs


class Closes(Protocol):
    """What can be closed."""

    def close(self) -> object:
        """Frees what it holds."""
        ...


def refuse_stop(error: BaseException, where: str) -> None:
    """EnvError in the place of a StopIteration or SystemExit, which would end a loop over rollouts, or the process."""
    refuse_leaving(
        error,
        where,
        "an environment whose data run out ends its episode as truncated and begins with them again, or raises another "
        "exception",
        kind=EnvError,
    )


Closed = TypeVar("Closed", bound=Closes)


def note_closed(env: Any) -> None:
    """An environment is closed: whoever hands it out again is told so where it fails."""
    for part in parts_of(env):
        with suppress(TypeError):  # an object without weak references
            CLOSED[id(part)] = part


def nothing_to_close() -> None:
    """What is called of a game that has no close()."""


def bare_of(env: Any) -> Any:
    """The environment without wrappers; a game of several agents that is not PettingZoo's class is its own."""
    return getattr(env, "unwrapped", env)


def close_all(envs: list[Closed]) -> None:
    """Closes every environment and forgets it; the first error is raised when all were asked."""
    errors: list[BaseException] = []
    while envs:
        env = envs.pop(0)
        note_closed(env)
        try:
            getattr(env, "close", nothing_to_close)()
        except RAISED as error:
            errors.append(error)
    if errors:
        refuse_stop(errors[0], "close() of an environment")
        raise errors[0]


def close_after(error: BaseException, envs: list[Closed]) -> None:
    """Closes every environment after an error, which is told what went wrong in that."""
    try:
        close_all(envs)
    except Exception as again:
        error.add_note(f"shoal: close() raised then: {text_of(again)}")


def check_alike(envs: Sequence[gym.Env[Any, Any]], name: str) -> None:
    """ConfigError unless these are environments of one kind, each an object of its own."""
    check_distinct(envs, name, "rows")
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


def check_distinct(envs: Sequence[Any], name: str, what: str) -> None:
    """ConfigError where two of these environments, called `what` in the message, are one object."""
    numbers: dict[int, int] = {}
    for number, env in enumerate(envs):
        first = numbers.setdefault(id(bare_of(env)), number)
        if first != number:
            raise ConfigError(
                f"{name}: {what} {first} and {number} are the same object; "
                "the callable must make a new environment each time"
            )


def parts_of(env: Any) -> list[Any]:
    """The environment within its wrappers, and those that a SyncVectorEnv steps."""
    bare = bare_of(env)
    within = bare.envs if isinstance(bare, SyncVectorEnv) else []
    return [bare, *(bare_of(part) for part in within)]


class KeptSpaces:
    """The spaces that rows began with, which may not change from one reset to the next."""

    def __init__(self, envs: list[gym.Env[Any, Any]]) -> None:
        """`envs`: one a row."""
        self._envs = envs
        self._spaces = [(env.observation_space, env.action_space) for env in envs]

    def changed(self, row: int) -> str:
        """What is wrong with the row's spaces now, or nothing."""
        env, (observation, action) = self._envs[row], self._spaces[row]
        what, then, now = "observation_space", observation, env.observation_space
        if now is observation or now == observation:
            what, then, now = "action_space", action, env.action_space
            if now is action or now == action:
                return ""
        return f"changed its {what} from {then} to {now}; its spaces must stay as they were after __init__"


def shortest_limit(env: gym.Env[Any, Any]) -> int | None:
    """The shortest of Gymnasium's time limits among an environment's wrappers, wherever they stand.

    One whose class steps in another way may not end at its number of steps, and does not count.
    """
    found: list[int] = []
    inner: Any = env
    while isinstance(inner, gym.Wrapper):
        if isinstance(inner, TimeLimit) and type(inner).step is TimeLimit.step:
            found.append(vars(inner)["_max_episode_steps"])
        inner = inner.env
    return min(found, default=None)


def without_limits(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The environment without Gymnasium's time limits, also those under other wrappers."""
    outer: Any = gym.Wrapper(env)
    first = outer
    while isinstance(outer, gym.Wrapper):
        while type(outer.env) is TimeLimit:
            outer.env = outer.env.env
        outer = outer.env
    return first.env


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
