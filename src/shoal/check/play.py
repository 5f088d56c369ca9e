"""Random episodes of one environment, each value of which is looked at: values, ends, buffers, scales."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.check.legal import ADVICE as MASK_ADVICE
from shoal.check.legal import Masks
from shoal.check.report import shown
from shoal.check.told import has_cost
from shoal.check.values import ValueCheck
from shoal.envs.python_env import strip
from shoal.types import Floats, Tree

if TYPE_CHECKING:
    import gymnasium as gym

    from shoal.check.report import Findings

COPIED = (bool, int, float, str, np.ndarray, np.generic, dict, tuple)
KEPT, MAX_OBS, MAX_SIZE = 200, 10_000, 1024
MAX_RETURN, MIN_RETURN = 1000.0, 0.01
MAX_RATIO, MAX_SCALE = 20.0, 100.0
MIN_EPISODES = 3


class Player:
    """One environment under random actions, and where it stands."""

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        """`name` stands in messages."""
        self.env, self.name = env, name
        self.episode = self.step_count = 0
        self.action: object = None
        self.under_way = False
        self.calls = 0
        self.masks = Masks(env, name)

    def reset(self, seed: int | None = None) -> Any:
        """What the environment's reset returns."""
        made = self.reset_alone(seed)
        self.masks.note(made, first=True)
        return made

    def reset_alone(self, seed: int | None = None) -> Any:
        """The same, without a look at the mask."""
        self.episode = self.episode + 1 if seed is None else 1
        self.step_count = 0
        self.begin()
        made: Any = self.env.reset() if seed is None else self.env.reset(seed=seed)
        self.under_way = False
        return made

    def step(self, action: object) -> Any:
        """What the environment's step returns."""
        self.step_count += 1
        self.action = action
        self.begin()
        made: Any = self.env.step(action)
        self.masks.note(made)
        self.under_way = False
        return made

    def begin(self) -> None:
        """Notes that the environment is called."""
        self.calls += 1
        self.under_way = True

    def where(self) -> str:
        """The episode and step under way."""
        if not self.step_count:
            return f"at reset {self.episode}"
        return f"at step {self.step_count} of episode {self.episode}, after the action {self.action},"


def same(first: Tree, second: Tree) -> bool:
    """Whether two observations or actions are equal in form and value; NaN equals NaN."""
    if isinstance(first, dict):
        if not isinstance(second, dict) or first.keys() != second.keys():
            return False
        return all(same(first[key], second[key]) for key in first)
    if isinstance(first, tuple | list):
        if not isinstance(second, tuple | list) or len(first) != len(second):
            return False
        return all(same(*pair) for pair in zip(first, second, strict=True))
    one = np.asarray(first)
    other = np.asarray(second)
    if one.shape != other.shape:
        return False
    floats = one.dtype.kind == other.dtype.kind == "f"
    return np.array_equal(one, other, equal_nan=floats)


@dataclass(slots=True)
class Played:
    """What random play came to."""

    steps: int = 0
    seconds: float = 0.0
    first_reset_s: float = 0.0
    lengths: list[int] = field(default_factory=list[int])
    returns: list[float] = field(default_factory=list[float])
    terminated: int = 0
    rewards: int = 0
    """Steps whose reward was not zero."""
    obs: list[Floats] = field(default_factory=list[Floats])
    """Observations of one Box, flat."""
    costs: int = 0
    """Steps whose info has a number under `cost`."""
    feature_names: tuple[str, ...] = ()
    """What the environment calls the numbers that it observes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A value that was returned, beside a copy of it as it was then."""

    what: str
    when: str
    value: Tree
    copied: Tree


class Keeper:
    """References to what was returned beside copies of it: does it change later?"""

    def __init__(self) -> None:
        self._kept: list[Kept] = []

    def keep(self, what: str, when: str, value: Tree) -> None:
        """Remembers a value as it is now, if it is one of the first."""
        if len(self._kept) < KEPT:
            copied = copy.deepcopy(plain(value))
            self._kept.append(Kept(what, when, value, copied))

    def changed(self) -> Kept | None:
        """The first value that is not what it was."""
        for kept in self._kept:
            if not same(plain(kept.value), kept.copied):
                return kept
        return None


def play(
    found: Findings,
    player: Player,
    *,
    seed: int,
    steps: int,
    budget_s: float,
) -> Played:
    """Plays `steps` random steps over as many episodes as they last, or for `budget_s` seconds."""
    space = player.env.action_space
    space.seed(seed)
    played = Played()
    record = _Record(found, player, played)
    began = time.perf_counter()
    made = player.reset(seed)
    played.first_reset_s = time.perf_counter() - began
    record.add_reset(made)
    ends_at = began + budget_s
    while played.steps < steps and time.perf_counter() < ends_at:
        if found.has("reset"):
            break
        action = player.masks.legal(space.sample())
        given = copy.deepcopy(action)
        made = player.step(given)
        player.action = action
        if not same(given, action):
            says = f"{player.where()} the environment changed the action it was given: {action} became {given}"
            advice = (
                "work on a copy: action = np.array(action); callers keep what they sent"
            )
            found.warn("actions", says, advice)
        ended = record.add_step(made)
        if ended is None:
            break
        if ended:
            record.add_reset(player.reset())
        if found.has("masks"):
            break
    played.seconds = time.perf_counter() - began
    if player.masks.any:
        found.ok("masks", f"leave an option in each of {played.steps} steps")
    _conclude(found, record.keeper, played)
    return played


class _Record:
    """Looks at what an environment returns, and counts it."""

    def __init__(self, found: Findings, player: Player, played: Played) -> None:
        self.found, self.player, self.played = found, player, played
        self.keeper = Keeper()
        self._space = player.env.observation_space
        self._check = ValueCheck(found, self._space)
        self._return = 0.0

    def add_reset(self, made: object) -> None:
        """Takes what reset returned."""
        self._keep_obs(self._check.check_reset(made, self.player.where()))
        self._check_mask()

    def add_step(self, made: object) -> bool | None:
        """Takes what step returned: whether the episode ended, None where it is no step at all."""
        player, played = self.player, self.played
        step = self._check.check_step(made, player.where())
        if step is None:
            return None
        self._check_mask()
        played.steps += 1
        played.rewards += step.reward != 0
        played.costs += has_cost(step.info)
        self._return += step.reward
        self._keep_obs(step.obs)
        self.keeper.keep("info", player.where(), step.info)
        ended = step.terminated or step.truncated
        if ended:
            played.lengths.append(player.step_count)
            played.returns.append(self._return)
            played.terminated += step.terminated
            self._return = 0.0
        return ended

    def _check_mask(self) -> None:
        player = self.player
        if player.masks.trouble:
            says = f"{player.where()} {player.masks.trouble}"
            self.found.error("masks", says, MASK_ADVICE)

    def _keep_obs(self, obs: Tree) -> None:
        self.keeper.keep("observation", self.player.where(), obs)
        if not isinstance(self._space, spaces.Box) or not isinstance(obs, np.ndarray):
            return
        if obs.dtype.kind != "f" or obs.shape != self._space.shape:
            return
        if obs.size <= MAX_SIZE and len(self.played.obs) < MAX_OBS:
            self.played.obs.append(obs.astype(np.float64).ravel())


def plain(value: Tree) -> Tree:
    """A value without what cannot be copied and compared: in dicts only numbers, texts, arrays and dicts stay."""
    if not isinstance(value, dict):
        return value
    kept: dict[object, Tree] = {}
    for key, part in value.items():
        if isinstance(part, COPIED):
            kept[key] = plain(part)
    return kept


def _conclude(found: Findings, keeper: Keeper, played: Played) -> None:
    changed = keeper.changed()
    if changed is not None:
        before, after = shown(changed.copied), shown(plain(changed.value))
        what = f"the {changed.what} returned {changed.when}"
        says = f"{what} changed later, from {before} to {after}"
        advice = (
            "return a copy (self.state.copy()): shoal's rows copy at once, "
            f"but code that keeps the {changed.what} loses it"
        )
        found.warn("buffers", says, advice)
    found.ok("reset", "returns (observation, info)")
    if not played.steps:  # of what was not reached nothing is said
        return
    seen = f"{played.steps} steps, {len(played.lengths)} ended episodes"
    for name, says in (
        ("step", "returns (observation, reward, terminated, truncated, info)"),
        ("observation", f"has the shape and type of its space in {seen}"),
        ("finite", f"no NaN, nothing infinite in {seen}"),
        ("bounds", "observations lie within the bounds of their space"),
        ("reward", "is a finite number each time"),
        ("actions", "are left as they were given"),
        ("buffers", "what was returned does not change later"),
    ):
        found.ok(name, says)


def check_ends(found: Findings, env: gym.Env[Any, Any], played: Played) -> None:
    """Whether episodes end, and whether what looks like a time limit is one."""
    _, limit = strip(env)
    lengths = played.lengths
    if not lengths:
        _check_endless(found, played, limit)
        return
    shortest, longest = min(lengths), max(lengths)
    lasted = f"{lengths[0]} steps"
    if shortest < longest:
        lasted = f"{shortest} to {longest} steps"
    truncated = len(lengths) - played.terminated
    count = f"{played.terminated} terminated, {truncated} truncated"
    found.ok("ends", f"{len(lengths)} episodes of {lasted}: {count}")
    alike = len(lengths) >= MIN_EPISODES and shortest == longest > 1
    if alike and not truncated:
        says = f"all {len(lengths)} episodes were terminated at step {lengths[0]} exactly: is that a time limit?"
        advice = (
            "a time limit is truncated=True, terminated=False, else the value of the last state is learned as 0; "
            "leave it if the task itself ends there"
        )
        found.warn("time-limit", says, advice)
    else:
        found.ok("time-limit", "is not reported as a termination")


def _check_endless(found: Findings, played: Played, limit: int | None) -> None:
    says = f"no episode ended in {played.steps} random steps"
    if limit:
        found.ok("ends", f"{says}; the time limit is {limit}")
        return
    advice = (
        "register it with max_episode_steps=..., wrap it in gymnasium.wrappers.TimeLimit(env, ...), or return "
        "truncated=True after some steps; if its episodes are only longer than that, try a larger --steps"
    )
    found.warn("ends", f"{says}, and there is no time limit", advice)


def check_scales(found: Findings, played: Played) -> None:
    """Whether rewards and observations have sizes that networks learn well from."""
    _check_returns(found, played)
    if len(played.obs) < 2:
        return
    seen = np.stack(played.obs)
    if not np.isfinite(seen).all():
        return
    scale = seen.std(0)
    moving = np.flatnonzero(scale > 0)
    if not len(moving):
        return
    least = moving[np.argmin(scale[moving])]
    most = moving[np.argmax(scale[moving])]
    low, high = scale[least], scale[most]
    named = [_component(played, int(at)) for at in (least, most)]
    says = f"components vary by {low:.3g} ({named[0]}) to {high:.3g} ({named[1]})"
    if high > MAX_RATIO * low or high > MAX_SCALE:
        advice = "train with --network.normalize-obs, or bring every component to about -1 to 1 in the environment"
        found.warn("obs-scale", f"under random actions, {says}", advice)
    else:
        found.ok("obs-scale", says)


def _component(played: Played, at: int) -> str:
    """A number of an observation by its name, or by its place."""
    names = played.feature_names
    known = len(names) == played.obs[0].size
    return names[at] if known else f"component {at}"


def _check_returns(found: Findings, played: Played) -> None:
    if not played.steps:
        return
    if not played.rewards:
        says = f"every reward was 0 in {played.steps} random steps"
        advice = "exploration may never find it: reward progress on the way, or make the first episodes easier"
        found.warn("reward-scale", says, advice)
        return
    if not played.returns:
        found.ok("reward-scale", "no episode ended, so there is no return to judge")
        return
    returns = np.array(played.returns)
    typical = float(np.abs(returns).mean())
    says = f"returns of random episodes: {returns.min():.4g} to {returns.max():.4g}, mean size {typical:.3g}"
    if MIN_RETURN <= typical <= MAX_RETURN:
        found.ok("reward-scale", says)
        return
    scale = 10 ** -np.round(np.log10(typical / 10))
    advice = f"train with --reward-scale {scale:.0e}: values are learned best around 10"
    found.warn("reward-scale", says, advice)
