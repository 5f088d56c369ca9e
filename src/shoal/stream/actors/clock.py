"""The clock of an actor on another machine: how far the learner's is ahead of it, between two bounds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shoal.stream.spans import Recorded


class Clock:
    """What is added to an actor's times so that they are the learner's.

    No rollout begins before it is asked for, and none arrives before it is sent: each one bounds the difference from
    both sides, and the tightest bounds of all are kept. An actor is idle when it is asked for the first time, so the
    lower bound is off by the time of a message.
    """

    def __init__(self, *, shared: bool) -> None:
        """`shared`: the actor is a process of this machine, where all have one clock."""
        self._low, self._high = (0.0, 0.0) if shared else (-math.inf, math.inf)
        self._shared = shared

    def hear(self, asked_s: float, got_s: float, recorded: Recorded) -> None:
        """Takes in a rollout that was asked for and came at these times of the learner's clock."""
        if self._shared:
            return
        self._low = max(self._low, asked_s - recorded.begun_s)
        self._high = min(self._high, got_s - recorded.ended_s)

    @property
    def error_s(self) -> float:
        """How far `here` may be off; infinite before anything was heard."""
        return max(0.0, self._high - self._low) / 2

    def here(self, recorded: Recorded) -> Recorded:
        """The same at the learner's times."""
        if self._shared:
            return replace(recorded, spans=recorded.spans.copy())
        ahead_s = (self._low + self._high) / 2
        return replace(
            recorded,
            spans=recorded.spans + np.array([0.0, ahead_s, ahead_s]),
            begun_s=recorded.begun_s + ahead_s,
            ended_s=recorded.ended_s + ahead_s,
        )
