"""Bounds: the least and the largest values of spaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.types import leaf_spaces

if TYPE_CHECKING:
    from gymnasium import Space

WIDE = 10.0
"""Bounds beyond this are wide: a policy's first actions are about as large as 1."""
SQUASH = "--network.squash scales actions to their bounds; or take actions of -1 to 1 and scale them in the environment"


def bounds_of(space: Space[Any]) -> tuple[Any, Any]:
    """The least and the largest value of a space without parts."""
    match space:
        case spaces.Discrete():
            return int(space.start), int(space.start + space.n - 1)
        case spaces.MultiDiscrete():
            return space.start, space.start + space.nvec - 1
        case spaces.MultiBinary():
            return 0, 1
        case spaces.Box():
            return space.low, space.high
        case _:
            raise TypeError(f"{space} has no bounds")


def wide_actions(space: Space[Any]) -> str:
    """What is wide in an action space, whose reach an unscaled policy hardly explores; nothing where all is narrow."""
    for path, part in leaf_spaces(space):
        if not isinstance(part, spaces.Box) or not part.is_bounded():
            continue
        largest = float(np.maximum(np.abs(part.low), np.abs(part.high)).max())
        if largest > WIDE:
            where = "".join(f"[{key!r}]" for key in path)
            return f"actions{where} reach as far as {largest:g}, but a policy begins with actions of about -1 to 1"
    return ""
