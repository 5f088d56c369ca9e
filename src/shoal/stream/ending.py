"""Ending: a run that somebody wants to end waits for its rows a moment longer, and not until their rollout is over."""

from __future__ import annotations

import time
from math import inf

from shoal.stream.halting import Halt

GRACE_S = 0.5
"""A rollout that is over within so many seconds is still learned from."""


class EndingError(Exception):
    """Rows are not waited for any longer. What they have under way is in the state of their stream."""


class Ending:
    """When the end of a run was asked for."""

    def __init__(self) -> None:
        """It was not."""
        self._asked_s = inf
        self.halt = Halt()
        """Whether the run is to stand still meanwhile, and for how long it has."""

    def begin(self) -> None:
        """Asks for it; again changes nothing. May be called by the handler of a signal."""
        self._asked_s = min(self._asked_s, time.monotonic())
        self.halt.end()

    @property
    def asked(self) -> bool:
        """Whether it was asked for."""
        return self._asked_s < inf

    @property
    def due(self) -> bool:
        """Whether nobody is to wait any longer."""
        return time.monotonic() - self._asked_s > GRACE_S

    @property
    def to_check(self) -> bool:
        """Whether `check` has something to do."""
        return self.halt.asked or self.due

    def check(self) -> float:
        """Stands still while the run is to, for so many seconds.

        Raises:
            EndingError: nobody is to wait any longer, or before the run may stand still it is to be saved.
        """
        if self.halt.asked and self.halt.at_risk:
            raise EndingError
        before_s = self.halt.stood_s
        self.halt.check()
        if self.due:
            raise EndingError
        return self.halt.stood_s - before_s
