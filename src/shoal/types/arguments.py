"""Arguments of public functions: a value of another type is refused in words, NumPy's numbers are numbers."""

from __future__ import annotations

import math
import os
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from shoal.types.errors import ConfigError

Kind = TypeVar("Kind")
SHOWN = 100
"""Characters of a refused value that are shown."""


def number_of(name: str, value: object, low: float, high: float) -> float:
    """A finite number from `low` to `high`, both of which may be.

    Raises:
        ConfigError: it is none, or lies outside.
    """
    given: Any = value
    number = isinstance(value, Real) and not _is_flag(value)
    found = float(given) if number else math.nan
    if not math.isfinite(found):
        raise ConfigError(f"{name} must be a finite number, got {shown(value)}")
    if not low <= found <= high:
        raise ConfigError(
            f"{name} must lie between {low:g} and {high:g}, got {found:g}"
        )
    return found


def whole_of(name: str, value: object, least: int, most: int = 2**31 - 1) -> int:
    """A whole number from `least` to `most`; 3.0 is one.

    Raises:
        ConfigError: it is none, or lies outside.
    """
    whole = isinstance(value, Integral)
    if isinstance(value, float | np.floating):
        whole = bool(value.is_integer())
    given: Any = value
    fits = whole and not _is_flag(value) and least <= int(given) <= most
    if not fits:
        raise ConfigError(
            f"{name} must be a whole number from {least} to {most}, got {shown(value)}"
        )
    return int(given)


def flag_of(name: str, value: object) -> bool:
    """True or false; ConfigError for anything else."""
    if not _is_flag(value):
        raise ConfigError(f"{name} must be true or false, got {shown(value)}")
    return bool(value)


def string_of(name: str, value: object) -> str:
    """A text; ConfigError for anything else."""
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a text, got {shown(value)}")
    return value


def path_of(name: str, value: object) -> Path:
    """A path, from a text with the home folder for a leading ~; ConfigError for what is none."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise ConfigError(
            f"{name} must be a path: a text or a pathlib.Path, got {shown(value)}"
        )
    return Path(os.path.expanduser(value))


def object_of(name: str, value: object, kind: type[Kind], write: str) -> Kind:
    """An object of a kind; ConfigError for another one, with what to `write`."""
    if not isinstance(value, kind):
        raise ConfigError(
            f"{name} must be a {kind.__name__}, got {shown(value)}; write {write}"
        )
    return value


def shown(value: object) -> str:
    """A refused value in a message: what it shows itself as, in one line, and of which type."""
    try:
        said = " ".join(repr(value).split())
    except Exception:  # its own repr
        return f"a {type(value).__name__}"
    cut = said if len(said) <= SHOWN else f"{said[:SHOWN]}..."
    return f"{cut} ({type(value).__name__})"


def _is_flag(value: object) -> bool:
    return isinstance(value, bool | np.bool_)
