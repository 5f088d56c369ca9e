"""Evidence: what a run's directory tells, as the doctor's rules ask for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.report.doctor.course import Course, course_of
from shoal.report.html import flat
from shoal.report.run_table import state_of
from shoal.report.timelines import engine_of
from shoal.run.bottleneck import Spent
from shoal.run.control import STARTING
from shoal.run.directory import rolling
from shoal.run.guard.notes import Notes, read_notes
from shoal.run.records import read_metrics
from shoal.run.status import GOING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.run.bottleneck import Engine
    from shoal.run.directory import RunDirectory
    from shoal.types import Floats

PART = 0.25
"""Of the lines: what counts as the beginning, and as the end."""


@dataclass(frozen=True)
class Evidence:
    """What is known of one run."""

    config: Mapping[str, Any]
    """Its settings, nested tables under dotted names."""
    status: Mapping[str, Any]
    """Its run.json, with the state as it is now and how many checkpoints there are, where that is known."""
    lines: Sequence[Mapping[str, Any]]
    """Of metrics.jsonl."""
    damage: str = ""
    """What is to be said of lines that could not be read."""
    guard: Notes = field(default_factory=Notes)
    """What the guard did."""
    engine: Engine = field(default_factory=lambda: engine_of({}))

    @classmethod
    def of(cls, run: RunDirectory) -> Evidence:
        """Reads a run's directory.

        Raises:
            ConfigError: it is none, or damaged.
        """
        config = run.read_config()
        kept = len(rolling(run.checkpoints))
        status = run.read_status() | {"state": state_of(run), "checkpoints": kept}
        metrics = read_metrics(run.metrics)
        return cls(
            flat(config),
            status,
            metrics.lines,
            metrics.warning,
            read_notes(run.path),
            engine_of(config, run.read_origin()),
        )

    def values(self, name: str) -> Floats:
        """A metric's values over the lines that have it."""
        found = [line[name] for line in self.lines if line.get(name) is not None]
        return np.array(found, np.float64)

    def early(self, name: str) -> float | None:
        """A metric's mean over the first quarter of the lines that have it; None where none does."""
        found = self.values(name)
        return None if not len(found) else float(found[: _part(len(found))].mean())

    def late(self, name: str) -> float | None:
        """And over the last quarter."""
        found = self.values(name)
        return None if not len(found) else float(found[-_part(len(found)) :].mean())

    def setting(self, name: str, default: float = 0.0) -> float:
        """A setting that is a number, the algorithm's own or the run's."""
        for key in (f"algorithm.{name}", name):
            value = self.config.get(key)
            if isinstance(value, int | float):
                return float(value)
        return default

    def has(self, name: str) -> bool:
        """Whether the run has a setting of this name."""
        return f"algorithm.{name}" in self.config or name in self.config

    @property
    def goes_on(self) -> bool:
        """Whether the run has not ended: what it comes to is not known yet."""
        return self.status.get("state") in (*GOING, STARTING)

    def reached(self, share: float) -> bool:
        """Whether the run has ended, or done so much of its steps: what begins slowly may still come before that.

        One that was stopped or killed may be resumed, and has not ended.
        """
        steps = self.number("steps") or (self.lines[-1]["step"] if self.lines else 0)
        on = self.goes_on or self.status.get("state") in ("stopped", "interrupted")
        return not on or steps >= share * self.setting("total_timesteps")

    def number(self, name: str) -> float | None:
        """A number of run.json; None where it does not say."""
        value = self.status.get(name)
        return float(value) if isinstance(value, int | float) else None

    @cached_property
    def course(self) -> Course:
        """How its return went."""
        return course_of(self.lines, self.status)

    @cached_property
    def spent(self) -> Spent | None:
        """Where its time went; None where its metrics do not tell."""
        return Spent.of_lines(self.lines)

    @property
    def replay(self) -> bool:
        """Whether it learned from a replay memory."""
        return self.engine.replay

    @property
    def groups(self) -> bool:
        """Whether it learned from groups of answers of a language model."""
        return self.has("num_generations")


def _part(count: int) -> int:
    return max(1, int(PART * count))
