"""Wrappers inside an environment whose state outlives its episodes: neither saved rows nor other rows have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, VectorEnv

from shoal.envs.told import is_told, tell

if TYPE_CHECKING:
    from collections.abc import Iterator

STATISTICS = "RunningMeanStd"
"""The class of running statistics, as Gymnasium, Stable-Baselines3 and copies of these call it."""
OF_OBS = ("obs_rms",)
OF_REWARDS = ("return_rms", "ret_rms", "reward_rms", "rew_rms")
"""What a wrapper calls its statistics."""
LOST = (
    "keeps running statistics that belong to no episode: they are not saved, and evaluation, `shoal.load` and `resume` "
    "begin with others"
)
SEEN = (
    ", so that the same observation looks different there; take it off and train with --network.normalize-obs, whose "
    "statistics are part of the policy"
)
PAID = (
    "; all returns, those of training and the greedy ones, are sums of its rewards, in units that differ from each "
    "other and from the task's own; take it off and train with --normalize-reward or --reward-scale"
)


def warn_of_lasting(env: object, name: str) -> None:
    """UserWarning for each wrapper of an environment that normalizes by statistics of its own, told once."""
    if is_told():
        return
    for said in dict.fromkeys(find_lasting(env)):
        says, _, advice = said.rpartition("; ")
        tell("wrappers", f"{name}: {says}", advice)


def find_lasting(env: object) -> Iterator[str]:
    """What each part of an environment with such statistics does, and what does it without loss."""
    left, known = [env], set[int]()
    while left:
        part = left.pop(0)
        if id(part) in known:
            continue
        known.add(id(part))
        if isinstance(part, AsyncVectorEnv):
            yield from _find_in_processes(part)
            continue
        names = {name for name, x in _parts_of(part) if type(x).__name__ == STATISTICS}
        kind = f"its wrapper {type(part).__name__} {LOST}"
        if names.intersection(OF_REWARDS):
            yield kind + PAID
        if names.difference(OF_REWARDS):
            yield kind + SEEN
        left += _inside(part)


def _find_in_processes(env: AsyncVectorEnv) -> Iterator[str]:
    """The same of environments in processes of Gymnasium's, which are asked by the names of the statistics."""
    for names, what in ((OF_OBS, SEEN), (OF_REWARDS, PAID)):
        if any(any(env.call("has_wrapper_attr", name)) for name in names):
            yield f"a wrapper of its environments ({' or '.join(names)}) {LOST}{what}"


def _parts_of(env: object) -> list[tuple[str, Any]]:
    """The attributes of an object; none where it has no dict of its own."""
    return list(getattr(env, "__dict__", {}).items())


def _inside(env: object) -> list[object]:
    """The environments that one holds, under whatever name; of several alike the first."""
    found: list[object] = []
    for name, part in _parts_of(env):
        several = isinstance(part, list | tuple) and part
        one: Any = part[0] if several else part
        if name == "env" or isinstance(one, gym.Env | VectorEnv):
            found.append(one)
    return found
