"""Limits: bounds on actions and on their change from step to step, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.types import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.envs.action_guard.settings import ActionGuard
    from shoal.types import Bools, Floats, Spec


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a Box of D numbers (flattened in C order), and how far an action may be from the one before.

    The arithmetic, which an exported policy repeats: in float64, x = min(max(a, low), high); where the episode has an
    action p already, x = min(max(x, p - max_change), p + max_change); then x is rounded to `dtype`, and where it is
    further than max_change from p by that, the next number towards p is taken.
    """

    low: tuple[float, ...]
    """[D], each a number of `dtype`; -inf where there is no bound."""
    high: tuple[float, ...]
    """[D]."""
    max_change: tuple[float, ...]
    """[D]; none where change is not limited."""
    dtype: str
    """Of the environment's actions: float32 or float64."""

    def apply(self, action: NDArray[Any], previous: Floats, begun: Bools) -> Floats:
        """The nearest actions [n, D] within the limits.

        Args:
            action: what the policy wants [n, D].
            previous: what was done last [n, D].
            begun: whether that was in the same episode [n].

        Returns:
            Numbers of `dtype` as float64 [n, D].
        """
        low, high = self.reach(previous, begun)
        wanted = np.clip(action.astype(np.float64), low, high)
        return self.rounded(wanted, previous, begun)

    def reach(self, previous: Floats, begun: Bools) -> tuple[Floats, Floats]:
        """The least and the greatest action [n, D] that each row may take now."""
        low = np.broadcast_to(np.array(self.low), previous.shape)
        high = np.broadcast_to(np.array(self.high), previous.shape)
        if not self.max_change:
            return low, high
        change = np.array(self.max_change)
        held = begun[:, None]
        low = np.where(held, np.maximum(low, previous - change), low)
        return low, np.where(held, np.minimum(high, previous + change), high)

    def rounded(self, action: Floats, previous: Floats, begun: Bools) -> Floats:
        """Actions [n, D] within reach as numbers of `dtype`, still within reach."""
        dtype = np.dtype(self.dtype)
        kept = np.clip(action.astype(dtype), self._of("low"), self._of("high"))
        if self.max_change:
            far = np.abs(kept - previous) > np.array(self.max_change)
            nearer = np.nextafter(kept, previous.astype(dtype))
            kept = np.where(far & begun[:, None], nearer, kept)
        return kept.astype(np.float64)

    def description(self) -> dict[str, Any]:
        """The same as JSON holds it; an infinite bound is null."""
        return {
            "low": [x if np.isfinite(x) else None for x in self.low],
            "high": [x if np.isfinite(x) else None for x in self.high],
            "max_change": list(self.max_change),
            "dtype": self.dtype,
        }

    def _of(self, name: str) -> NDArray[Any]:
        return np.array(getattr(self, name)).astype(self.dtype)


def limits_of(guard: ActionGuard, spec: Spec) -> Limits | None:
    """The limits of a guard for these actions; None for actions that are choices.

    Raises:
        ConfigError: limits for choices, as many numbers as there are no dimensions, bounds outside the action space or
            with nothing between them.
    """
    space = spec.action_space
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        for name in ("low", "high", "max_change"):
            if getattr(guard, name):
                raise ConfigError(
                    f"{spec.env_id}: action_guard.{name} is for a Box of real numbers, but the actions are {space}; "
                    "forbid choices by action_guard.constraint, which returns a mask of those that are allowed"
                )
        return None
    size = int(np.prod(space.shape))
    outer_low, outer_high = (
        bound.reshape(-1).astype(np.float64) for bound in (space.low, space.high)
    )
    low = sized("low", guard.low, size, spec)
    high = sized("high", guard.high, size, spec)
    low = outer_low if low is None else _inward(low, space.dtype, +np.inf)
    high = outer_high if high is None else _inward(high, space.dtype, -np.inf)
    _check_bounds(low, high, outer_low, outer_high, spec)
    change = sized("max_change", guard.max_change, size, spec)
    return Limits(
        tuple(low.tolist()),
        tuple(high.tolist()),
        () if change is None else tuple(change.tolist()),
        space.dtype.name,
    )


def sized(name: str, given: tuple[float, ...], size: int, spec: Spec) -> Floats | None:
    """One number for each of `size` dimensions; None where none was given. ConfigError for another count."""
    if not given:
        return None
    if len(given) not in (1, size):
        wanted = "one number" if size == 1 else f"one number, or {size}"
        raise ConfigError(
            f"{spec.env_id}: action_guard.{name} has {len(given)} numbers, but an action of {spec.action_space} "
            f"has {size}; give {wanted}"
        )
    return np.array(np.broadcast_to(given, size), np.float64)


def _inward(bound: Floats, dtype: np.dtype[Any], towards: float) -> Floats:
    """The bounds as numbers of `dtype`, none of them further out by rounding."""
    kept = bound.astype(dtype)
    outside = kept < bound if towards > 0 else kept > bound
    return np.where(outside, np.nextafter(kept, dtype.type(towards)), kept).astype(
        np.float64
    )


def _check_bounds(
    low: Floats, high: Floats, outer_low: Floats, outer_high: Floats, spec: Spec
) -> None:
    outside = np.flatnonzero((low < outer_low) | (high > outer_high))
    if len(outside):
        at = int(outside[0])
        raise ConfigError(
            f"{spec.env_id}: action_guard bounds dimension {at} to [{low[at]:g}, {high[at]:g}], but the action space "
            f"only has [{outer_low[at]:g}, {outer_high[at]:g}]; give bounds inside it"
        )
    empty = np.flatnonzero(low > high)
    if len(empty):
        at = int(empty[0])
        raise ConfigError(
            f"{spec.env_id}: action_guard.low is above action_guard.high in dimension {at} "
            f"({low[at]:g} > {high[at]:g}); swap them"
        )
