"""Spans: what a process did from when to when, for a timeline; a bounded number of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

KINDS = (
    "environment",
    "acting",
    "learning",
    "waiting",
    "transfer",
    "publishing",
    "saving",
    "evaluation",
)
"""What a process may be doing; a span has the place of its kind here."""
MOST_SPANS = 2000
"""Of one process from one taking to the next; what comes later is counted and left out."""
SHORTEST_S = 5e-6
"""Shorter ones tell nothing."""
JOIN_S = 20e-6
"""Spans of one kind that lie closer together are one."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a process did since it was asked before; its times are those of its own `time.perf_counter`."""

    spans: NDArray[np.float64]
    """[n, 3]: the place of its kind in `KINDS`, and when it began and ended, in seconds."""
    left_out: int
    """Spans that are not among them."""
    cpu_s: float
    """Processor seconds of all its threads."""
    begun_s: float
    """When it began what it was asked for; an actor: its rollout."""
    ended_s: float
    """When this was written."""

    @classmethod
    def of_saved(cls, saved: Mapping[str, Any] | None) -> Recorded | None:
        """From its fields as a tree."""
        if saved is None:
            return None
        return cls(
            np.asarray(saved["spans"], np.float64).reshape(-1, 3),
            int(saved["left_out"]),
            float(saved["cpu_s"]),
            float(saved["begun_s"]),
            float(saved["ended_s"]),
        )


@dataclass(frozen=True, slots=True)
class Heard:
    """What another process has sent, on this one's clock."""

    number: int
    """Of the actor."""
    pid: int
    """0 where it runs on another machine."""
    recorded: Recorded
    clock_error_s: float
    """How far its times may be off; infinite where nothing is known."""
    inside: bool = False
    """Whether it is a thread of this process, whose processor seconds are among this one's."""


class Spans:
    """The spans of this process since they were taken last, and what others have sent."""

    def __init__(self) -> None:
        """None yet."""
        self.heard: list[Heard] = []
        """What other processes have sent."""
        self.left_out = 0
        """Spans that came when there were `MOST_SPANS`."""
        self._kinds: list[int] = []
        self._begun: list[float] = []
        self._ended: list[float] = []

    def add(self, kind: str, begun_s: float, ended_s: float) -> None:
        """Adds one that has ended, by `time.perf_counter`."""
        if ended_s - begun_s < SHORTEST_S:
            return
        place = KINDS.index(kind)
        if self._kinds and self._kinds[-1] == place:
            gap_s = begun_s - self._ended[-1]
            if 0 <= gap_s < JOIN_S:
                self._ended[-1] = ended_s
                return
        if len(self._kinds) == MOST_SPANS:
            self.left_out += 1
            return
        self._kinds.append(place)
        self._begun.append(begun_s)
        self._ended.append(ended_s)

    def take(self) -> tuple[NDArray[np.float64], int]:
        """The spans [n, 3] (see `Recorded`) since the last call, and how many were left out."""
        columns = [self._kinds, self._begun, self._ended]
        found = np.array(columns, np.float64).T.copy()
        left_out, self.left_out = self.left_out, 0
        for column in columns:
            column.clear()
        return found, left_out

    def take_heard(self) -> list[Heard]:
        """What other processes have sent since the last call."""
        heard, self.heard = self.heard, []
        return heard
