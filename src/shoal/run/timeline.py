"""The timeline of a run's last updates: who did what, when, in `timeline.jsonl`."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.run.drafts import write_atomic
from shoal.stream.meter import core_seconds
from shoal.stream.spans import KINDS, Spans

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from shoal.run.run import Run
    from shoal.stream.meter import Meter

FORMAT = 1
"""Of the file; counted up where its meaning changes."""
MOST_UPDATES = 1000
MOST_KEPT = 200_000
"""Spans, and processes in an update, of the whole file; where there are more, the oldest updates are forgotten."""
LOOK_S = 0.02
"""From one look at the cores to the next, at least: a look takes some 60 µs."""
LEARNER = "learner"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one process did in one update."""

    process: str
    pid: int
    spans: NDArray[np.float64]
    left_out: int
    cpu_s: float
    clock_error_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Update:
    """An update, from the end of the one before to its own."""

    number: int
    begun_s: float
    ended_s: float
    core_s: dict[int, float]
    """By core: seconds in which it was busy, whatever with; empty where nobody looked."""
    pieces: list[Piece] = field(default_factory=list[Piece])

    @property
    def count(self) -> int:
        """Spans, and processes."""
        return sum(len(piece.spans) + 1 for piece in self.pieces)


class Recorder:
    """Keeps the spans of the last updates, and writes them."""

    def __init__(self, meter: Meter, updates: int) -> None:
        """Has the meter, and the actors whose rollouts it counts, record from now on.

        Args:
            meter: the learner's.
            updates: how many are kept.
        """
        self._spans = meter.spans = Spans()
        self._updates: deque[Update] = deque(maxlen=updates)
        self._count = 0
        self._began_s = self._ended_s = time.perf_counter()
        self._cpu_s = time.process_time()
        self._core_s, self._looked_s = core_seconds(), self._began_s

    def take(self, number: int) -> None:
        """An update has ended."""
        now, cpu_s = time.perf_counter(), time.process_time()
        spans, left_out = self._spans.take()
        update = Update(number, self._ended_s, now, self._busy(now))
        heard_of = self._spans.take_heard()
        threads_s = sum(one.recorded.cpu_s for one in heard_of if one.inside)
        own_s = max(0.0, cpu_s - self._cpu_s - threads_s)
        update.pieces.append(Piece(LEARNER, os.getpid(), spans, left_out, own_s))
        for heard in heard_of:
            recorded = heard.recorded
            piece = Piece(
                f"actor {heard.number}",
                heard.pid,
                recorded.spans,
                recorded.left_out,
                recorded.cpu_s,
                heard.clock_error_s,
            )
            update.pieces.append(piece)
        self._ended_s, self._cpu_s = now, cpu_s
        if len(self._updates) == self._updates.maxlen:
            self._count -= self._updates[0].count
        self._updates.append(update)
        self._count += update.count
        while self._count > MOST_KEPT and len(self._updates) > 1:
            self._count -= self._updates.popleft().count

    def _busy(self, now: float) -> dict[int, float]:
        """Seconds in which each core was busy since this was looked at last; none where that is a moment ago."""
        if now - self._looked_s < LOOK_S:
            return {}
        before, self._core_s, self._looked_s = self._core_s, core_seconds(), now
        return {core: x - before.get(core, x) for core, x in self._core_s.items()}

    def write(self, path: Path) -> None:
        """Writes what is kept, in the place of what was there; nothing where no update has ended.

        The first line names the kinds of spans; then a line for each update, and one for each process in it. Times are
        whole microseconds since the run's process began to record.
        """
        if not self._updates:
            return
        lines: list[dict[str, Any]] = [{"timeline": FORMAT, "kinds": list(KINDS)}]
        for update in self._updates:
            cores = {str(core): _us(x) for core, x in update.core_s.items()}
            begun_s, ended_s = (
                update.begun_s - self._began_s,
                update.ended_s - self._began_s,
            )
            lines.append(
                {
                    "update": update.number,
                    "begun": _us(begun_s),
                    "ended": _us(ended_s),
                    "cores": cores,
                }
            )
            lines += [self._line(piece) for piece in update.pieces]
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        write_atomic(path, text.encode())

    def _line(self, piece: Piece) -> dict[str, Any]:
        times = np.round((piece.spans[:, 1:] - self._began_s) * 1e6)
        spans = np.column_stack([piece.spans[:, 0], times]).astype(np.int64)
        known = np.isfinite(piece.clock_error_s)
        return {
            "process": piece.process,
            "pid": piece.pid,
            "cpu": _us(piece.cpu_s),
            "left_out": piece.left_out,
            "clock_error": _us(piece.clock_error_s) if known else None,
            "spans": spans.tolist(),
        }


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def recorder_of(meter: Meter, updates: int) -> Recorder | None:
    """What records so many updates; None for none."""
    return Recorder(meter, updates) if updates else None


def finish_timeline(run: Run) -> None:
    """Writes a run's timeline, once; the run is not lost where that fails."""
    recorder, run.recorder = run.recorder, None
    if recorder is None or run.directory is None:
        return
    try:
        recorder.write(run.directory.timeline)
    except OSError as error:
        run.warn(f"no timeline was written: {error}")
