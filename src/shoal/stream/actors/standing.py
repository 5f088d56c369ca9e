"""Actors of a run that stands still: they are told so, and wait between two steps until it goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shoal.stream.actors.distant import DistantActor
from shoal.stream.actors.messages import Op

if TYPE_CHECKING:
    from shoal.stream.actors.pool import ActorPool
    from shoal.stream.actors.rows import AnyActor

AGAIN_S = 60.0
"""Actors are told so again once in so many seconds: to one on another machine a silent learner is one that is gone."""


class StandingActors:
    """Tells the actors of a pool, those that are there."""

    def __init__(self, pool: ActorPool) -> None:
        """Nothing is told yet."""
        self._pool = pool
        self._told_s = 0.0

    def stand(self) -> None:
        """They stand still after the step that each is in."""
        self._told_s = time.monotonic()
        for process in self._there():
            process.tell(Op.PAUSE)

    def attend(self) -> None:
        """They do so yet: what they say is taken in, and they are told again now and then."""
        for process in self._there():
            if isinstance(process, DistantActor):
                process.take_in()
        if time.monotonic() - self._told_s > AGAIN_S:
            self.stand()

    def go_on(self) -> None:
        """They go on; nobody blames them for the time in which they stood."""
        for process in self._there():
            process.tell(Op.GO_ON)

    def _there(self) -> list[AnyActor]:
        return [self._pool.env.processes[number] for number in self._pool.numbers]
