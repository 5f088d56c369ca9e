"""Distance: how far two actions are from each other, as a share of what the action space allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.envs.bounds import bounds_of
from shoal.types import choices, leaf_spaces

if TYPE_CHECKING:
    from shoal.types import Spec, Tree

SAME = 0.05
"""Actions no farther apart are the same; choices are the same or not."""


class Distance:
    """The mean over an action's numbers: 0 or 1 of a choice, |a - b| / range of a number.

    Where a number has no bounds, its range is 1.
    """

    def __init__(self, spec: Spec) -> None:
        """Of a spec's actions."""
        self._spec = spec
        self._parts = [part for _, part in leaf_spaces(spec.action_space)]

    def check(self, action: Tree) -> None:
        """ValueError for an action of another shape than the environment's, not finite, or a choice that it lacks."""
        layout, env_id = self._spec.action, self._spec.env_id
        leaves = zip(layout.leaves, self._parts, layout.flat(action), strict=True)
        for leaf, part, given in leaves:
            array = np.asarray(given)
            numbers = array.dtype.kind in "biuf"
            if not numbers or array.shape != leaf.shape or not np.isfinite(array).all():
                got = (
                    f"one of shape {array.shape}"
                    if numbers
                    else f"what is no number ({array.dtype})"
                )
                raise ValueError(
                    f"{env_id}: expected a finite action{leaf.name} of shape {leaf.shape}, got {got}"
                )
            if not choices(part):
                continue
            low, high = bounds_of(part)
            if ((array != np.round(array)) | (array < low) | (array > high)).any():
                raise ValueError(
                    f"{env_id}: the action{leaf.name} {array} is outside {part}; give it in the environment's own terms"
                )

    def __call__(self, one: Tree, other: Tree) -> float:
        """In [0, 1] within the bounds, for actions that `check` allows."""
        layout = self._spec.action
        found: list[float] = []
        pairs = zip(layout.flat(one), layout.flat(other), strict=True)
        for part, (a, b) in zip(self._parts, pairs, strict=True):
            left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
            if choices(part):
                found += (left != right).astype(float).ravel().tolist()
                continue
            low, high = (np.asarray(x, np.float64) for x in bounds_of(part))
            width = high - low
            width = np.where(np.isfinite(width) & (width > 0), width, 1.0)
            found += (np.abs(left - right) / width).ravel().tolist()
        return float(np.mean(found))

    def agrees(self, distance: float) -> bool:
        """Whether that is the same."""
        return distance <= SAME
