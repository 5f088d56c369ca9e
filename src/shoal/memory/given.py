"""Arrays from outside: in the dtype of a spec, finite, and within its spaces, or refused by the first wrong step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.bounds import bounds_of
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gymnasium import spaces
    from numpy.typing import NDArray

ROUNDING = 1e-4
"""By how much of their size observations may be outside their bounds, as another machine rounds them."""


def as_dtype(
    where: str,
    name: str,
    values: NDArray[Any],
    dtype: np.dtype[Any],
    *,
    axes: int = 1,
) -> NDArray[Any]:
    """Numbers [T, ...], or with `axes` = 2 [T, B, ...], in another dtype, which holds them all.

    Raises:
        ConfigError: they are no numbers, not finite, or other ones in that dtype; it names the first step.
    """
    if values.dtype.kind not in "biuf":
        raise ConfigError(
            f"{where}: expected numbers as {name}, got an array of the type {values.dtype}"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        step = first_step(np.isfinite(values), axes)
        raise ConfigError(
            f"{where}: the numbers of {name} are not finite in step {step}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(dtype)
    fits = np.isfinite(cast) if dtype.kind == "f" else cast == values
    if not fits.all():
        raise ConfigError(
            f"{where}: {dtype} does not hold all numbers of {name}, the first in step {first_step(fits, axes)}"
        )
    return cast


def check_actions(
    where: str, part: spaces.Space[Any], values: NDArray[Any], *, axes: int = 1
) -> None:
    """ConfigError where an action of [T, ...] or [T, B, ...] is outside its space; it names the first step."""
    low, high = bounds_of(part)
    within = (values >= low) & (values <= high)
    if not within.all():
        at = tuple(np.argwhere(~within)[0][:axes])
        raise ConfigError(
            f"{where}: the action {values[at]} of step {first_step(within, axes)} is outside {part}"
        )


def check_observations(
    where: str,
    name: str,
    part: spaces.Space[Any],
    values: NDArray[Any],
    *,
    axes: int = 1,
    names: Sequence[str] = (),
) -> None:
    """ConfigError where an observation is outside its space by more than rounding; it names the first step.

    `names`: what the numbers of one observation are called, where they have names.
    """
    low, high = bounds_of(part)
    near: Any = 0
    if values.dtype.kind == "f":
        size = np.abs(np.nan_to_num(low, posinf=0, neginf=0))
        near = ROUNDING * np.maximum(size, 1.0)
    within = (values >= low - near) & (values <= high + near)
    if not within.all():
        at = tuple(np.argwhere(~within)[0])
        called = ""
        if names:
            place = int(np.ravel_multi_index(at[axes:], values.shape[axes:]))
            called = f" ({names[place]})"
        raise ConfigError(
            f"{where}: {name}{called} of step {first_step(within, axes)} is {values[at]:g}, outside {part}; is it in "
            "other units?"
        )


def first_step(right: NDArray[np.bool_], axes: int = 1) -> str:
    """The first step of [T, ...] in which something is wrong; of [T, B, ...] with its row."""
    step, *row = np.argwhere(~right)[0][:axes].tolist()
    return f"{step} of row {row[0]}" if row else f"{step}"
