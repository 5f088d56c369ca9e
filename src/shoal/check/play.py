"""Random episodes of one environment, each value of which is looked at: values, ends, buffers, scales."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.check.report import shown
from shoal.check.values import ValueCheck
from shoal.envs.python_env import strip

if TYPE_CHECKING:
    import gymnasium as gym

    from shoal.check.report import Findings

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
        self.action: Any = None
        self.under_way = False
        self.calls = 0

    def reset(self, seed: int | None = None) -> Any:
        """What the environment's reset returns."""
        self.episode, self.step_count = (1 if seed is not None else self.episode + 1), 0
        self.begin()
        made: Any = self.env.reset(seed=seed) if seed is not None else self.env.reset()
        self.under_way = False
        return made

    def step(self, action: Any) -> Any:
        """What the environment's step returns."""
        self.step_count += 1
        self.action = action
        self.begin()
        made: Any = self.env.step(action)
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


def draw(space: spaces.Space[Any]) -> Any:
    """A random action, of the kind that rows hand to an environment."""
    action = space.sample()
    return int(action) if isinstance(space, spaces.Discrete) else action


def same(first: Any, second: Any) -> bool:
    """Whether two observations or actions are equal in form and value; NaN equals NaN."""
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and first.keys() == second.keys()
            and all(same(first[k], second[k]) for k in first)
        )
    if isinstance(first, tuple | list):
        alike = isinstance(second, tuple | list) and len(first) == len(second)
        return alike and all(same(*pair) for pair in zip(first, second, strict=True))
    one, other = np.asarray(first), np.asarray(second)
    return one.shape == other.shape and np.array_equal(
        one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f"
    )


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
    obs: list[Any] = field(default_factory=list[Any])
    """Observations of one Box, flat."""


class Keeper:
    """References to what was returned beside copies of it: does it change later?"""

    def __init__(self) -> None:
        self._kept: list[tuple[str, str, Any, Any]] = []

    def keep(self, what: str, when: str, value: Any) -> None:
        """Remembers a value as it is now, if it is one of the first."""
        if len(self._kept) < KEPT:
            self._kept.append((what, when, value, copy.deepcopy(plain(value))))

    def changed(self) -> tuple[str, str, str, str] | None:
        """The first value that is not what it was: what, when, as it was, as it is."""
        for what, when, value, copied in self._kept:
            if not same(plain(value), copied):
                return what, when, shown(copied), shown(plain(value))
        return None


def play(
    found: Findings, player: Player, *, seed: int, steps: int, budget_s: float
) -> Played:
    """Plays `steps` random steps over as many episodes as they last, or for `budget_s` seconds."""
    env, played, keeper = player.env, Played(), Keeper()
    check = ValueCheck(found, env.observation_space)
    env.action_space.seed(seed)
    began = time.perf_counter()
    made = player.reset(seed)
    played.first_reset_s = time.perf_counter() - began
    _keep_obs(played, env, check.check_reset(made, player.where()), keeper, player)
    episode_return = 0.0
    while (
        played.steps < steps
        and time.perf_counter() - began < budget_s
        and not found.has("reset")
    ):
        action = draw(env.action_space)
        given = copy.deepcopy(action)
        made = player.step(given)
        player.action = action
        if not same(given, action):
            says = f"{player.where()} the environment changed the action it was given: {action} became {given}"
            found.warn(
                "actions",
                says,
                "work on a copy: action = np.array(action); callers keep what they sent",
            )
        read = check.check_step(made, player.where())
        if read is None:
            break
        obs, reward, terminated, truncated, info = read
        played.steps += 1
        played.rewards += reward != 0
        episode_return += reward
        _keep_obs(played, env, obs, keeper, player)
        keeper.keep("info", player.where(), info)
        if terminated or truncated:
            played.lengths.append(player.step_count)
            played.returns.append(episode_return)
            played.terminated += terminated
            episode_return = 0.0
            _keep_obs(
                played,
                env,
                check.check_reset(player.reset(), player.where()),
                keeper,
                player,
            )
    played.seconds = time.perf_counter() - began
    _conclude(found, keeper, played)
    return played


def plain(value: Any) -> Any:
    """A value without what cannot be copied and compared: in dicts only numbers, texts, arrays and dicts stay."""
    if isinstance(value, dict):
        kinds = (bool, int, float, str, np.ndarray, np.generic, dict, tuple)
        return {
            key: plain(part) for key, part in value.items() if isinstance(part, kinds)
        }
    return value


def _keep_obs(
    played: Played, env: gym.Env[Any, Any], obs: Any, keeper: Keeper, player: Player
) -> None:
    keeper.keep("observation", player.where(), obs)
    space = env.observation_space
    array = obs if isinstance(obs, np.ndarray) else None
    if (
        not isinstance(space, spaces.Box)
        or array is None
        or array.dtype.kind != "f"
        or array.shape != space.shape
    ):
        return
    if array.size <= MAX_SIZE and len(played.obs) < MAX_OBS:
        played.obs.append(array.astype(np.float64).ravel())


def _conclude(found: Findings, keeper: Keeper, played: Played) -> None:
    changed = keeper.changed()
    if changed:
        what, when, before, after = changed
        says = f"the {what} returned {when} changed later, from {before} to {after}"
        advice = (
            "return a copy (self.state.copy()): shoal's rows copy at once, "
            f"but code that keeps the {what} loses it"
        )
        found.warn("buffers", says, advice)
    seen = f"{played.steps} steps, {len(played.lengths)} ended episodes"
    for name, says in (
        ("reset", "returns (observation, info)"),
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
    limit, lengths = strip(env)[1], played.lengths
    if not lengths and limit:
        found.ok(
            "ends",
            f"no episode ended in {played.steps} random steps; the time limit is {limit}",
        )
    elif not lengths:
        says = f"no episode ended in {played.steps} random steps, and there is no time limit"
        advice = (
            "register it with max_episode_steps=..., wrap it in gymnasium.wrappers.TimeLimit(env, ...), or return "
            "truncated=True after some steps; if its episodes are only longer than that, try a larger --steps"
        )
        found.warn("ends", says, advice)
    else:
        lasted = (
            f"{min(lengths)} to {max(lengths)} steps"
            if min(lengths) < max(lengths)
            else f"{lengths[0]} steps"
        )
        count = f"{played.terminated} terminated, {len(lengths) - played.terminated} truncated"
        found.ok("ends", f"{len(lengths)} episodes of {lasted}: {count}")
    once = len(lengths) >= MIN_EPISODES and min(lengths) == max(lengths) > 1
    if once and played.terminated == len(lengths):
        says = f"all {len(lengths)} episodes were terminated at step {lengths[0]} exactly: is that a time limit?"
        advice = (
            "a time limit is truncated=True, terminated=False, else the value of the last state is learned as 0; "
            "leave it if the task itself ends there"
        )
        found.warn("time-limit", says, advice)
    elif lengths:
        found.ok("time-limit", "is not reported as a termination")


def check_scales(found: Findings, played: Played) -> None:
    """Whether rewards and observations have sizes that networks learn well from."""
    _check_returns(found, played)
    if len(played.obs) < 2 or not np.isfinite(seen := np.stack(played.obs)).all():
        return
    scale = seen.std(0)
    moving = np.flatnonzero(scale > 0)
    if not len(moving):
        return
    least, most = moving[np.argmin(scale[moving])], moving[np.argmax(scale[moving])]
    says = f"components vary by {scale[least]:.3g} (component {least}) to {scale[most]:.3g} (component {most})"
    if scale[most] > MAX_RATIO * scale[least] or scale[most] > MAX_SCALE:
        advice = "train with --network.normalise-obs, or bring every component to about -1 to 1 in the environment"
        found.warn("obs-scale", f"under random actions, {says}", advice)
    else:
        found.ok("obs-scale", says)


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
