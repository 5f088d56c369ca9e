"""Ranges that are inferred from a setting's type, its value and what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from shoal.experiment.sweep.kinds import (
    accepts,
    hint_of,
    is_number,
    is_whole,
    value_of,
    words_of,
)
from shoal.experiment.sweep.space import Range, check_name
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.experiment.experiment import Experiment

AROUND, GRID = 5.0, 4
"""How many times as large and small a number may become, and one on a grid of powers of two."""
NEAR_ONE, FARTHEST, NEAREST = 0.5, 0.5, 1e-3
"""Shares above it are varied by their distance from 1, which lies between `NEAREST` and `FARTHEST`."""
AT_ZERO = {"ent_coef": (1e-4, 0.1)}
"""Ranges of settings that may be 0, from which no scale can be seen."""


def infer(base: Experiment, names: Sequence[str]) -> dict[str, Range]:
    """A range for each of these settings.

    Words and switches: all of them. Whole numbers: powers of two times the value, from a quarter to four times, or all
    between. Shares near 1: by the logarithm of their distance from 1. Other numbers: from a fifth to five times the
    value, by the logarithm.

    Raises:
        ConfigError: no such setting, a name twice, or nothing to infer from.
    """
    found: dict[str, Range] = {}
    for name in names:
        where = f"[sweep] search: {name}"
        check_name(base, name, where)
        if name in found:
            raise ConfigError(f"{where} stands there twice")
        found[name] = _inferred(base, name, where)
    return found


def _inferred(base: Experiment, name: str, where: str) -> Range:
    hint, value = hint_of(base, name), value_of(base, name)
    if isinstance(value, bool) or not is_number(value):
        words = [word for word in words_of(hint) if not accepts(base, name, word)]
        if len(words) > 1 and value is not None:
            return Range(choices=tuple(words))
        raise ConfigError(
            f"{where} is {value!r}, from which no range can be inferred; give one: [space.{name}] with choices, or "
            "with low and high"
        )
    number = cast("float", value)
    if number <= 0:
        return _from_zero(name, number, where)
    if is_whole(hint):
        return _whole(int(number))
    return _number(base, name, number)


def _from_zero(name: str, value: float, where: str) -> Range:
    if value == 0 and name in AT_ZERO:
        low, high = AT_ZERO[name]
        return Range(low=low, high=high, log=True)
    raise ConfigError(
        f"{where} is {value:g}, from which no scale can be seen; give its range: [space.{name}] with low and high"
    )


def _whole(value: int) -> Range:
    low, high = max(1, value // GRID), value * GRID
    if value % GRID == 0 and value > GRID:
        return Range(low=float(low), high=float(high), factor=2)
    return Range(low=float(low), high=float(high), log=True)


def _number(base: Experiment, name: str, value: float) -> Range:
    share = bool(accepts(base, name, 1.5)) and not accepts(base, name, 1.0)
    if share and NEAR_ONE < value <= 1:
        off = max(1 - value, NEAREST)
        nearest, farthest = off / AROUND, min(off * AROUND, FARTHEST)
        return Range(low=_plain(1 - farthest), high=_plain(1 - nearest), log1m=True)
    low, high = _plain(value / AROUND), _plain(value * AROUND)
    if accepts(base, name, high):
        high = 1.0 if share else value
    return Range(low=low, high=high, log=True)


def _plain(number: float) -> float:
    """A number in a few digits."""
    return float(f"{number:.6g}")
