"""Checks of one environment's spaces, and of each value that it returns against them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from gymnasium import spaces

from shoal.check.report import shown
from shoal.envs.bounds import SQUASH, wide_actions
from shoal.envs.python_env import ObsReader, is_long, read_flag, read_rewards
from shoal.types import ARRAYS, Layout, Tree, is_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    import gymnasium as gym
    from numpy.typing import NDArray

    from shoal.check.report import Findings
    from shoal.types import Bools

HELD = (*ARRAYS, spaces.Dict, spaces.Tuple)
TEXT = (
    "--preprocessing.text words (or characters), here and in training, makes integers"
)
OTHERS = (
    "--preprocessing.keep-keys KEY ... leaves other keys out; or describe it by Box, Discrete or MultiDiscrete: "
    "arrays of one size, such as tokens padded to a length"
)


def check_spaces(found: Findings, env: gym.Env[Any, Any]) -> None:
    """Whether rows can hold the spaces, policies be trained on them, and their bounds mean something."""
    for what in ("observation_space", "action_space"):
        space: object = getattr(env, what, None)
        if not isinstance(space, spaces.Space):
            advice = f"set self.{what} to a gymnasium.spaces.Space in __init__"
            found.error("spaces", f"{what} is {shown(repr(space))}", advice)
            continue
        for path, part in parts(space):
            _check_kind(found, f"{what}{path}", part)
            if isinstance(part, spaces.Box):
                _check_box(found, f"{what}{path}", part, acts=what == "action_space")
    if not found.has("spaces"):
        found.ok(
            "spaces",
            shown(f"observes {env.observation_space}, does {env.action_space}", 160),
        )


def parts(
    space: spaces.Space[Any], path: str = ""
) -> list[tuple[str, spaces.Space[Any]]]:
    """A space and all spaces within it, each with where it stands: `["camera"]`, `[0]`."""
    found = [(path, space)]
    for key, part in _inner(space):
        found += parts(part, f"{path}[{key!r}]")
    return found


def _inner(
    space: spaces.Space[Any],
) -> Iterable[tuple[str | int, spaces.Space[Any]]]:
    """The spaces within a Dict or Tuple, with their keys; nothing of another space."""
    if isinstance(space, spaces.Dict):
        return space.spaces.items()
    if isinstance(space, spaces.Tuple):
        return enumerate(space.spaces)
    return ()


def _check_kind(found: Findings, where: str, space: spaces.Space[Any]) -> None:
    kind = type(space).__name__
    if not isinstance(space, HELD):
        advice = f"{TEXT} of texts; {OTHERS}" if is_text(space) else OTHERS
        found.error(
            "spaces",
            f"{where} is {shown(space)}; {kind} has no arrays of fixed size",
            advice,
        )


def _check_empty(found: Findings, where: str, space: spaces.Box, *, acts: bool) -> None:
    """Of a Box without numbers: an action is refused in training, a part of an observation is only of no use."""
    says = f"{where} is {shown(space)} and holds no numbers"
    if acts:
        found.error("spaces", says, "leave it out: there is nothing to choose")
    else:
        found.warn("spaces", says, "leave it out: it tells nothing")


def _check_box(found: Findings, where: str, space: spaces.Box, *, acts: bool) -> None:
    low, high = space.low, space.high
    if not low.size:
        _check_empty(found, where, space, acts=acts)
        return
    if acts and not space.is_bounded():
        says = f"{where} is unbounded: {shown(space)}; a policy begins with actions of about -1 to 1"
        advice = "give finite bounds, best -1 and 1, and scale the action inside step(); network.squash needs bounds"
        found.warn("action-scale", says, advice)
    if (low > high).any() or (acts and (low == high).any()):
        at = _first(low >= high)
        says = f"{where} has low {low[at]} and high {high[at]} at {list(at)}"
        found.error("spaces", says, "low must be smaller than high in each component")
    elif (low == high).any():
        at = _first(low == high)
        says = f"{where} has low = high = {low[at]} at {list(at)}, so that component tells nothing"
        found.warn("spaces", says, "leave the component out, or correct its bounds")
    if acts and space.is_bounded() and (wide := wide_actions(space)):
        found.warn("action-scale", f"{where}: {wide}", f"train with {SQUASH}")
    if acts and space.dtype.kind != "f":
        advice = "use MultiDiscrete for integers that are chosen, or a Box of float32"
        found.warn(
            "dtype",
            f"{where} holds {space.dtype}; policies act in a Box by real numbers",
            advice,
        )
    elif space.dtype.kind == "f" and space.dtype != np.float32:
        advice = "use float32, which is what networks read; here and in what the environment returns"
        found.warn(
            "dtype",
            f"{where} holds {space.dtype}: every value is converted once more",
            advice,
        )


def _first(where: Bools) -> tuple[int, ...]:
    """The index of the first true element."""
    return tuple(np.argwhere(where)[0].tolist())


class Step(NamedTuple):
    """What a step returned, read."""

    obs: Tree
    reward: float
    terminated: bool
    truncated: bool
    info: object


class ValueCheck:
    """Compares what an environment returns with its spaces; each kind of mistake is noted where it first occurs."""

    def __init__(self, found: Findings, space: spaces.Space[Any]) -> None:
        """`space`: of the observations."""
        self._found = found
        self._space = space
        self._parts: list[tuple[str, spaces.Space[Any]]] = []
        self._readers: dict[str, ObsReader] = {}
        for path, part in parts(space):
            if not isinstance(part, spaces.Dict | spaces.Tuple):
                self._parts.append((path, part))
                self._readers[path] = ObsReader(part, Layout.of(part).single)

    def check_reset(self, made: object, when: str) -> Tree:
        """The observation of `(observation, info)`; None, and `reset` an error, when it is something else."""
        if not isinstance(made, tuple) or not is_long(made, 2):
            says = f"{when} reset() returned {shown(repr(made))}"
            advice = "return exactly (observation, info); info may be {}"
            self._found.error("reset", says, advice)
            return None
        obs, info = made
        if not isinstance(info, dict):
            says = f"{when} reset() returned the info {shown(repr(info))}"
            self._found.error("reset", says, "return a dict")
        self.check_obs(obs, when)
        return obs

    def check_step(self, made: object, when: str) -> Step | None:
        """What a step returned, read; None, and `step` an error, when it is no step at all."""
        if not isinstance(made, tuple) or not is_long(made, 5):
            kind = type(made).__name__
            if isinstance(made, tuple):
                kind = f"{len(made)} values"
            says = f"{when} step() returned {kind}: {shown(repr(made))}"
            advice = "return exactly (observation, reward, terminated, truncated, info)"
            self._found.error("step", says, advice)
            return None
        obs, reward, terminated, truncated, info = made
        ended = self._check_flag("terminated", terminated, when)
        cut = self._check_flag("truncated", truncated, when)
        if not isinstance(info, dict):
            says = f"{when} step() returned the info {shown(repr(info))}"
            self._found.error("step", says, "return a dict")
        self.check_obs(obs, when)
        return Step(obs, self._check_reward(reward, when), ended, cut, info)

    def _check_flag(self, name: str, flag: object, when: str) -> bool:
        if isinstance(flag, bool | np.bool_):
            return bool(flag)
        read = read_flag(flag)
        says = f"{when} step() returned {name} = {shown(repr(flag))}"
        if read is None:
            self._found.error("step", says, "terminated and truncated are bools")
        else:
            kind = type(flag).__name__
            self._found.warn("step", f"{says}, a {kind}", f"return bool({name})")
        return bool(read)

    def check_obs(self, obs: Tree, when: str) -> None:
        """Notes an observation of another form than its space, outside its bounds, or not finite."""
        for path, space in self._parts:
            try:
                value = _inside(self._space, obs, path)
            except (KeyError, IndexError, TypeError):
                says = f"{when} the observation {shown(repr(obs))} has no part {path}"
                advice = "return a value of the form that the space has"
                self._found.error("observation", says, advice)
                return
            self._check_part(f"{when} the observation{path}", path, space, value)

    def _check_part(
        self,
        what: str,
        path: str,
        space: spaces.Space[Any],
        value: Tree,
    ) -> None:
        if not self._readers[path].fits(value):
            says, advice = _misfit(space, value)
            self._found.error("observation", f"{what} {says}", advice)
        elif isinstance(space, spaces.Box):
            array = np.asarray(value)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                says = f"{what} holds {_count_bad(array)}: {shown(array)}"
                advice = "find the division by zero or overflow, and clip what may grow; NaN would destroy the policy"
                self._found.error("finite", says, advice)
            elif (array < space.low).any() or (array > space.high).any():
                at = _first((array < space.low) | (array > space.high))
                says = f"{what} is {array[at]} at {list(at)}, outside [{space.low[at]}, {space.high[at]}]"
                advice = "widen the bounds of the space, or clip; shoal compares no bounds of a Box, so training works"
                self._found.warn("bounds", says, advice)

    def _check_reward(self, reward: Tree, when: str) -> float:
        if isinstance(read_rewards([reward]), int):
            says = f"{when} the reward is {shown(repr(reward))}"
            self._found.error("reward", says, "return a float")
            return 0.0
        value = float(reward)
        if not np.isfinite(value):
            advice = "find the division by zero or overflow; a penalty must be a finite number, such as -100"
            self._found.error("reward", f"{when} the reward is {value}", advice)
            return 0.0
        return value


def _inside(space: spaces.Space[Any], value: Tree, path: str) -> Tree:
    """The part of a value that belongs to a part of its space."""
    for key, part in _inner(space):
        start = f"[{key!r}]"
        if path.startswith(start):
            return _inside(part, value[key], path.removeprefix(start))
    return value


def _misfit(space: spaces.Space[Any], value: Tree) -> tuple[str, str]:
    """Why a value is not of its space, and what to do."""
    shape = getattr(space, "shape", ()) or ()
    dtype = space.dtype
    wanted = f"np.array(..., dtype=np.{dtype}) of shape {shape}"
    if shape and not isinstance(value, np.ndarray):
        kind = type(value).__name__
        return f"is {shown(repr(value))}, a {kind}", f"return {wanted}"
    if np.shape(value) != shape:
        says = f"has the shape {np.shape(value)}, but the space has {shape}"
        return says, f"return {wanted}, or correct the space"
    given = np.asarray(value).dtype
    casting = "no" if isinstance(space, spaces.Box) else "same_kind"
    if not np.can_cast(given, dtype or given, casting):
        says = f"has the type {given}, but the space has {dtype}"
        return says, f"return it with .astype(np.{dtype})"
    says = f"is {shown(value)}, which is not in {shown(space)}"
    return says, "correct the value, or the bounds of the space"


def _count_bad(array: NDArray[Any]) -> str:
    counts = {"NaN": np.isnan(array).sum(), "infinite": np.isinf(array).sum()}
    said = [f"{count} {name}" for name, count in counts.items() if count]
    return " and ".join(said)
