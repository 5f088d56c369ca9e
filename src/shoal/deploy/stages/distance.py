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

    def __call__(self, one: Tree, other: Tree) -> float:
        """In [0, 1] within the bounds.

        Raises:
            ValueError: of another shape than the actions', or not finite.
        """
        layout = self._spec.action
        found: list[float] = []
        pairs = zip(layout.flat(one), layout.flat(other), strict=True)
        for leaf, part, (a, b) in zip(layout.leaves, self._parts, pairs, strict=True):
            left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
            if right.shape != leaf.shape or not np.isfinite(right).all():
                raise ValueError(
                    f"{self._spec.env_id}: expected a finite action{leaf.name} of shape {leaf.shape}, got one of shape "
                    f"{right.shape}"
                )
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
