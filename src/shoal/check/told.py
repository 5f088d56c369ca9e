"""What an environment says beside its observations and rewards: names of its numbers, and what steps cost."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, cast

import numpy as np

from shoal.envs.names import declared_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    import gymnasium as gym

    from shoal.check.play import Played
    from shoal.check.report import Findings
    from shoal.envs.told import Told

MOST_SHOWN = 12
MOST_TOLD = 3


def check_told(
    found: Findings, env: gym.Env[object, object], name: str, played: Played
) -> None:
    """Says which names the environment has, and that it has costs; warns of names that do not fit.

    The names of what is observed are kept in `played`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        names = declared_names(env, name)
    for warning in caught:
        advice = "correct them in the environment, or in its metadata"
        found.warn("names", str(warning.message), advice)
    told = [
        f"{what.replace('_', ' ')} {', '.join(texts[:MOST_SHOWN])}"
        for what, texts in names.items()
        if texts
    ]
    if told and not caught:
        found.ok("names", f"has {'; '.join(told)}")
    played.feature_names = names.get("feature_names", ())
    if played.steps and played.costs == played.steps:
        says = "each step's info has a `cost`: training with --preprocessing.cost-key cost reads it"
        found.ok("cost", says)


def note_heard(found: Findings, heard: Sequence[Told]) -> None:
    """Warns of what training warns of too: all of one check in one finding."""
    for check in dict.fromkeys(told.check for told in heard):
        own = [told for told in heard if told.check == check]
        seen = list(dict.fromkeys(told.says for told in own))
        says = "; ".join(seen[:MOST_TOLD])
        advice = "; ".join(dict.fromkeys(told.advice for told in own))
        found.warn(check, says, advice)


def has_cost(info: object) -> bool:
    """Whether a step's info has under `cost` a number, which can be what it cost."""
    if not isinstance(info, dict) or "cost" not in info:
        return False
    array = np.asarray(cast("dict[str, object]", info)["cost"])
    return array.ndim == 0 and array.dtype.kind in "fiub"
