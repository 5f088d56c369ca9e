"""Wrappers inside an environment whose state outlives its episodes: neither saved rows nor other rows have it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from gymnasium import wrappers
from gymnasium.wrappers import vector

from shoal.envs.told import is_told

if TYPE_CHECKING:
    from collections.abc import Iterator

NORMALIZES_OBS = (wrappers.NormalizeObservation, vector.NormalizeObservation)
NORMALIZES_REWARD = (wrappers.NormalizeReward, vector.NormalizeReward)
LOST = (
    "keeps running statistics that belong to no episode: they are not saved, and evaluation, `shoal.load` and `resume` "
    "begin with others"
)


def warn_of_lasting(env: object, name: str) -> None:
    """UserWarning for each wrapper of an environment that normalizes by statistics of its own, told once."""
    if is_told():
        return
    for said in dict.fromkeys(find_lasting(env)):
        warnings.warn(f"{name}: {said}", stacklevel=3)


def find_lasting(env: object) -> Iterator[str]:
    """What each wrapper with such statistics does, and what does it without loss."""
    inner: Any = env
    while inner is not None:
        kind = type(inner).__name__
        if isinstance(inner, NORMALIZES_OBS):
            yield (
                f"its wrapper {kind} {LOST}, so that the same observation looks different there; take it off and train "
                "with --network.normalize-obs, whose statistics are part of the policy"
            )
        elif isinstance(inner, NORMALIZES_REWARD):
            yield (
                f"its wrapper {kind} {LOST}; all returns, those of training and the greedy ones, are sums of its "
                "rewards, in units that differ from each other and from the task's own; take it off and train with "
                "--reward-scale"
            )
        inner = _next_inside(inner)


def _next_inside(env: object) -> object:
    """What a wrapper wraps, or the first of the environments in a vector environment; None for others."""
    parts: dict[str, Any] = getattr(env, "__dict__", {})
    several = parts.get("envs")
    if isinstance(several, list | tuple) and several:
        return several[0]
    return parts.get("env")
