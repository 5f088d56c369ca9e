"""A finding: something that is wrong with a run, its numbers, and what to try."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDED, NOTHING, CAUSE, SYMPTOM, SPEED = 90, 80, 60, 40, 20
"""Importance: how a run ended; that nothing could be learned; what kept it from learning; how that shows; its speed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    rule: str
    """Its name, which stays: what programs go by."""
    importance: int
    """Larger comes first."""
    what: str
    """What is wrong, in one sentence with its numbers."""
    advice: str
    """What to try."""
    numbers: Mapping[str, float]
    """The numbers that the sentence stands on."""

    def lines(self) -> list[str]:
        """What a person reads."""
        return [self.what, f"  try: {self.advice}"]

    def table(self) -> dict[str, object]:
        """What `--json` prints."""
        return {
            "rule": self.rule,
            "importance": self.importance,
            "what": self.what,
            "advice": self.advice,
            "numbers": dict(self.numbers),
        }
