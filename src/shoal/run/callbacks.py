"""Callbacks: what a user has called while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from shoal.run.run import Run


@dataclass(frozen=True, slots=True)
class EpisodeEnd:
    """An episode that ended."""

    step: int
    """Environment steps of the run at the end of the rollout that it ended in."""
    row: int
    agent: str
    """The agent's name; empty where an environment has one agent alone."""
    episode_return: float
    """The environment's own rewards, summed."""
    length: int
    info: Mapping[str, float]
    """The declared numbers of its last info."""


Record: TypeAlias = EpisodeEnd | dict[str, float]
"""An episode's end, or a line of metrics as `metrics.jsonl` holds it."""


class Callback(Protocol):
    """Called at every line of metrics and at every episode's end; `run.stop(reason)` ends the run.

    A callback may also have `warn(message)`, which gets what a user should be told, `close()`, and an attribute
    `episodes` that is false where it does without the ends of episodes.
    """

    def __call__(self, run: Run, record: Record, /) -> None:
        """Something happened."""
        ...


def wants_episodes(callback: Callback) -> bool:
    """Whether a callback is called at ends of episodes: always, unless its `episodes` is false."""
    return bool(getattr(callback, "episodes", True))
