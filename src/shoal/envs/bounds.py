"""Bounds: the least and the largest values of spaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gymnasium import spaces

if TYPE_CHECKING:
    from gymnasium import Space


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
