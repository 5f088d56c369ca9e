"""What is not finite among observations and rewards, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.outputs import take, write
from shoal.types import EnvError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.types import Bools, Layout, Leaf, Spec, Tree

LARGEST = float(np.finfo(np.float32).max)
"""What policies and losses can hold."""
LAST_FINITE = (
    "an episode that ends so goes on with preprocessing.final_nan='last_finite'"
)
"""What would take an observation that is not finite at a termination."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What rows take that policies and losses cannot hold, as preprocessing makes something else of it."""

    last_finite: bool = False
    """Whether the last observation of a terminated episode may be the one before it, where it is not finite."""
    largest_reward: float = LARGEST
    """The size up to which a reward is taken."""


def check_finite(
    spec: Spec,
    rows: slice,
    obs: Tree,
    reward: NDArray[np.float64],
    lengths: NDArray[np.int64] | None = None,
    *,
    terminated: Bools | None = None,
    largest_reward: float = LARGEST,
) -> None:
    """EnvError naming the first row whose observation or reward is NaN or too large, and its episode's step.

    Observations are too large beyond float32, rewards beyond `largest_reward`.
    """
    bad, also = not_finite(spec.observation, obs), ""
    if bad is not None:
        if terminated is not None and terminated[bad[1]]:
            also = f"; {LAST_FINITE}"
        name, row, value = f"observation{bad[0].name}", bad[1], bad[2]
    elif np.count_nonzero(np.abs(reward) <= largest_reward) != reward.size:
        row = int(np.argmin(np.abs(reward) <= largest_reward))
        name, value = "reward", reward[row]
    else:
        return
    when = "" if lengths is None else f" at step {lengths[row]} of its episode"
    raise EnvError(
        f"{spec.env_id}: row {rows.start + row}{when} returned {said(name, value)}{also}"
    )


def said(name: str, value: Any) -> str:
    """What of an observation or a reward cannot be learned from, why, and what to do."""
    why = ""
    if not np.isnan(value).any():
        why = f", but float32, in which it is learned from, holds up to {LARGEST:.1e}"
    return (
        f"the {name} {value}{why}; fix the environment, or clip there what may overflow"
    )


def put_last_finite(layout: Layout, obs: Tree, before: Tree, rows: Bools) -> None:
    """Puts the observations `before` [B, ...] in the place of those of the chosen rows that are not finite."""
    for row in np.flatnonzero(rows).tolist():
        if not_finite(layout, take(obs, slice(row, row + 1))) is not None:
            write(obs, row, before)


def not_finite(layout: Layout, tree: Tree) -> tuple[Leaf, int, NDArray[Any]] | None:
    """The first NaN, infinity or number beyond float32 among arrays [rows, ...]: its leaf, row and the row's values."""
    arrays = [tree] if tree.__class__ is np.ndarray else layout.flat(tree)
    for leaf, array in zip(layout.leaves, arrays, strict=True):
        if array.dtype.kind != "f":
            continue
        finite = np.isfinite(array)
        if array.dtype.itemsize > 4:
            finite = np.abs(array) <= LARGEST
        if np.count_nonzero(finite) != array.size:
            row = int(np.argmin(finite.reshape(len(array), -1).all(axis=1)))
            return leaf, row, array[row]
    return None


def within(reward: NDArray[Any], largest: float) -> bool:
    """Whether no reward of type float64 is larger in size; others are looked at elsewhere."""
    if getattr(reward, "dtype", None) != np.float64:
        return True
    return np.count_nonzero(np.abs(reward) <= largest) == reward.size


def may_overflow(layout: Layout, obs: Tree, reward: NDArray[Any]) -> bool:
    """A quick look at a rollout whose numbers were finite in their own types: whether float32 may not hold some."""
    if not np.isfinite(reward).all():
        return True
    arrays = [obs] if obs.__class__ is np.ndarray else layout.flat(obs)
    wide = (x for x in arrays if x.dtype.kind == "f" and x.dtype.itemsize > 4)
    return any(max(x.max(), -x.min()) > LARGEST for x in wide)
