"""Schedules: when a stream acts, steps and hands over, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from shoal.types import ConfigError


@dataclass(frozen=True, slots=True)
class Sync:
    """Collect, learn, collect."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Half of the rows act while the other half step; deterministic, but not bit for bit what Sync gives."""


Schedule: TypeAlias = Sync | Overlap
_NAMES: dict[str, Schedule] = {"sync": Sync(), "overlap": Overlap()}


def schedule(name: str) -> Schedule:
    """The schedule of a configuration's word."""
    if name not in _NAMES:
        raise ConfigError(f"unknown schedule {name!r}; use {' or '.join(_NAMES)}")
    return _NAMES[name]
