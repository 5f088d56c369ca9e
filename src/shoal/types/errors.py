"""Errors that say what was wrong, where, and what would work; and the checks of settings that raise them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, is_dataclass
from math import inf, isfinite
from typing import Any

from shoal.types.room import GIB, free_bytes

TINY = 1e-12
"""The least number that a setting above 0 may be."""


class ConfigError(ValueError):
    """A setting that cannot work; the message says which one and what would work."""


def check_ranges(config: object, **ranges: tuple[float, float]) -> None:
    """ConfigError naming the first setting of `config` that lies outside its range (both ends belong to it)."""
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            refuse_function(name, value, dir(config))
            raise ConfigError(f"{name} must be a number, got {value!r}")
        if isinstance(value, float) and name in _whole(config):
            raise ConfigError(f"{name} must be a whole number, got {value}")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ConfigError(f"{name} must lie within 64 bits, got {value}")
        if not low <= value <= high:
            least = "above 0" if low == TINY else f">= {low:g}"
            allowed = least if high == inf else f"between {low:g} and {high:g}"
            raise ConfigError(f"{name} must be {allowed}, got {value}")


def refuse_function(name: str, value: object, names: Collection[str]) -> None:
    """ConfigError for a function in the place of a number that has a schedule among the settings `names`."""
    schedule = f"{name}_schedule"
    if callable(value) and schedule in names:
        raise ConfigError(
            f"{name} must be a number, got {value!r}; a function is given as {schedule}: "
            f"it takes the share of the run that is done and returns a factor for {name}"
        )


def _whole(config: object) -> set[str]:
    """Settings of a dataclass that are declared as whole numbers, or as those or None."""
    if not is_dataclass(config):
        return set()
    return {x.name for x in fields(config) if x.type in ("int", "int | None", int)}


def check_least(config: object, **lowest: float) -> None:
    """ConfigError naming the first setting of `config` that is under its lowest value."""
    check_ranges(config, **{name: (low, inf) for name, low in lowest.items()})


def check_positive(config: object, *names: str) -> None:
    """ConfigError naming the first of these settings of `config` that is not above 0."""
    check_ranges(config, **dict.fromkeys(names, (TINY, inf)))


def check_given(config: object, *names: str) -> None:
    """ConfigError naming the first of these settings of `config` that is given, and not above 0."""
    given = (name for name in names if getattr(config, name) is not None)
    check_positive(config, *given)


def check_finite(config: object, *names: str) -> None:
    """ConfigError naming the first of these settings of `config` that is infinite or no number."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int | float) or not isfinite(value):
            raise ConfigError(f"{name} must be finite, got {value}")


def check_seed(seed: Any, name: str = "seed") -> None:
    """ConfigError unless it is a whole number from 0 to 2**63 - 1."""
    whole = hasattr(type(seed), "__index__") and not isinstance(seed, bool)
    if not (whole and 0 <= seed < 2**63):
        raise ConfigError(
            f"{name} must be a whole number from 0 to 2**63 - 1, got {seed!r}"
        )


def check_room(nbytes: int, what: str, instead: str) -> None:
    """ConfigError where `what` needs more memory than this process may still take; `instead` says what to do."""
    free = free_bytes()
    if free is not None and nbytes > free:
        raise ConfigError(
            f"{what} need {nbytes / GIB:,.1f} GiB of memory, and this process may take {free / GIB:,.1f} GiB more "
            f"(what the machine has free, or its container's limit leaves); {instead}"
        )


def text_of(value: object) -> str:
    """`str(value)`; a sentence where that raises, as a user's own exception may."""
    try:
        return str(value)
    except Exception as error:
        return f"(its text cannot be shown: str() of it raised {type(error).__name__})"


class EnvError(RuntimeError):
    """An environment broke its contract; the message names the row, the step and what to do."""
