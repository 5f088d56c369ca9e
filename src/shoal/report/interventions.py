"""Interventions: what a run's guard did, as it may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.run.guard.notes import read_notes
from shoal.types.text import printable

if TYPE_CHECKING:
    from shoal.run.directory import RunDirectory
    from shoal.run.guard.notes import Intervention

MOST = 50
"""Interventions that are shown, the last."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One time that the guard acted. Texts are printable."""

    update: int
    step: int
    rule: str
    action: str
    said: str


@dataclass(frozen=True, slots=True)
class Interventions:
    """How often the guard acted, and the last times of which it kept notes."""

    count: int = 0
    last: tuple[Shown, ...] = ()


def read_interventions(run: RunDirectory) -> Interventions:
    """What the guard of a run did; nothing where it never acted. ConfigError: its file is damaged."""
    notes = read_notes(run.path)
    last = tuple(map(_shown, notes.interventions[-MOST:]))
    return Interventions(notes.count, last)


def _shown(one: Intervention) -> Shown:
    rule, action, said = (
        printable(text, 400) for text in (one.rule, one.action, one.said)
    )
    return Shown(one.update, one.step, rule, action, said)
