"""Schedules: when a stream acts, steps and hands over, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from shoal.types import ConfigError, check_ranges


@dataclass(frozen=True, slots=True)
class Sync:
    """Collect, learn, collect."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Half of the rows act while the other half step; deterministic, but not bit for bit what Sync gives."""


@dataclass(frozen=True, slots=True)
class Async:
    """Actors collect while the learner learns: up to `max_staleness` rollouts ahead of it.

    What is trained on was chosen by weights of at most so many versions before. With 0 it equals Sync bit for bit.
    """

    max_staleness: int = 1

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(self, max_staleness=(0, MOST_STALENESS))


MOST_STALENESS = 64
Schedule: TypeAlias = Sync | Overlap | Async


def schedule(name: str, max_staleness: int = 1) -> Schedule:
    """The schedule of a configuration's word; `max_staleness` is for `async`."""
    match name:
        case "sync":
            return Sync()
        case "overlap":
            return Overlap()
        case "async":
            return Async(max_staleness)
        case _:
            raise ConfigError(f"unknown schedule {name!r}; use sync, overlap or async")
