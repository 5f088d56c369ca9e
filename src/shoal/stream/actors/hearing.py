"""Hearing: what actors did, as they send it with their rollouts, on the learner's clock."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from shoal.stream.actors.clock import Clock
from shoal.stream.actors.distant import DistantActor
from shoal.stream.actors.threaded import ThreadActor
from shoal.stream.spans import Heard

if TYPE_CHECKING:
    from shoal.stream.actors.parts import Part
    from shoal.stream.actors.rows import AnyActor
    from shoal.stream.spans import Spans


class Hearing:
    """Of all actors, for a timeline."""

    def __init__(self, spans: Spans, processes: list[AnyActor]) -> None:
        """`processes`: the actors; one that is replaced is another entry of the same list."""
        self._spans, self._processes = spans, processes
        self._clocks = [Clock(shared=False) for _ in processes]
        self._asked: list[deque[float]] = [deque() for _ in processes]

    def begin(self, number: int) -> None:
        """An actor begins; it may be another process than before."""
        here = not isinstance(self._processes[number], DistantActor)
        self._clocks[number] = Clock(shared=here)
        self._asked[number].clear()

    def asked(self, number: int) -> None:
        """An actor was asked for one more rollout."""
        self._asked[number].append(time.perf_counter())

    def take(self, number: int, part: Part) -> None:
        """A rollout came."""
        asked_s = self._asked[number].popleft()
        if part.recorded is None:
            return
        process, clock = self._processes[number], self._clocks[number]
        clock.hear(asked_s, time.perf_counter(), part.recorded)
        pid = 0 if isinstance(process, DistantActor) else process.pid
        here = clock.here(part.recorded)
        inside = isinstance(process, ThreadActor)
        self._spans.heard.append(Heard(number, pid, here, clock.error_s, inside))
