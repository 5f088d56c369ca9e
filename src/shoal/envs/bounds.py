"""Bounds: the least and the largest values of spaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.types import leaf_spaces

if TYPE_CHECKING:
    from gymnasium import Space

WIDE, NARROW = 10.0, 0.1
"""Bounds beyond the one are wide, ranges below the other narrow: a policy's first actions are about as large as 1."""
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
    """What an unscaled policy hardly explores in an action space: a wide, narrow or distant Box; nothing if all fit."""
    for path, part in leaf_spaces(space):
        if not isinstance(part, spaces.Box) or not part.is_bounded():
            continue
        where = "".join(f"[{key!r}]" for key in path)
        if unfit := _unfit(part):
            return f"actions{where} {unfit}, but a policy begins with actions of about -1 to 1"
    return ""


def _unfit(box: spaces.Box) -> str:
    """Why the numbers from -1 to 1 do not fit a bounded Box; nothing where they do."""
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    largest = float(np.maximum(np.abs(low), np.abs(high)).max())
    if largest > WIDE:
        return f"reach as far as {largest:g}"
    for least, most in zip(low.ravel().tolist(), high.ravel().tolist(), strict=True):
        away = least >= 1 or most <= -1 or most - least < NARROW
        if away and least < most:
            return f"lie between {least:g} and {most:g}"
    return ""
