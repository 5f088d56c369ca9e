"""Traces: `timeline.jsonl` as it is read, with its sizes, types and times checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from shoal.run.reading import open_regular, parse_json, sentence
from shoal.run.records import lines_of
from shoal.run.timeline import FORMAT, LEARNER, MOST_UPDATES
from shoal.stream.spans import KINDS, MOST_SPANS
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

TIMELINE_BYTES = 32 << 20
"""What timeline.jsonl may take; shoal's own take some million bytes."""
MOST_READ = 250_000
"""Spans of a file, and lines."""
MOST_PROCESSES, MOST_CORES = 1100, 4096
NAME = 40
LONGEST_US = 10**15
"""Thirty years, in microseconds."""


@dataclass(slots=True)
class Trace:
    """What one process did."""

    name: str
    pid: int
    spans: NDArray[np.float64]
    """[n, 3], by their beginnings: the place of its kind in `KINDS`, and when it began and ended, in seconds."""
    updates: NDArray[np.int64]
    """[n]: in which update each was taken."""
    cpu_s: float = 0.0
    left_out: int = 0
    clock_error_s: float = 0.0
    """How far its times may be off; infinite where nobody knows."""

    @property
    def seconds(self) -> dict[str, float]:
        """By kind, in the order of `KINDS`; what lies within another span counts once, as its own kind."""
        own = own_seconds(self.spans)
        totals = np.bincount(self.spans[:, 0].astype(int), own, minlength=len(KINDS))
        return dict(zip(KINDS, totals.tolist(), strict=True))


@dataclass(slots=True)
class Traces:
    """A timeline: all processes, the learner first."""

    first: int
    last: int
    """Its updates."""
    begun_s: float
    ended_s: float
    """Of the learner's updates."""
    core_s: dict[int, float]
    """By core: seconds in which it was busy, whatever with."""
    processes: list[Trace]

    @property
    def elapsed_s(self) -> float:
        """From the beginning of the first update to the end of the last."""
        return max(self.ended_s - self.begun_s, 1e-9)


def own_seconds(spans: NDArray[np.float64]) -> NDArray[np.float64]:
    """The length of each span [n] less that of those within it; `spans` [n, 3] by their beginnings."""
    own = spans[:, 2] - spans[:, 1]
    around: list[int] = []
    for place, (_, begun, ended) in enumerate(spans.tolist()):
        while around and spans[around[-1], 2] <= begun:
            around.pop()
        if around:
            inside = min(ended, float(spans[around[-1], 2])) - begun
            own[around[-1]] -= inside
        around.append(place)
    return np.maximum(own, 0.0)


@dataclass(slots=True)
class _Pieces:
    """What is known of a process while its lines are read."""

    pid: int
    spans: list[NDArray[np.int64]] = field(default_factory=list["NDArray[np.int64]"])
    updates: list[int] = field(default_factory=list[int])
    cpu: int = 0
    left_out: int = 0
    clock_error: float = 0.0

    def trace(self, name: str) -> Trace:
        whole = np.concatenate(self.spans)
        counts = [len(part) for part in self.spans]
        numbers = np.repeat(np.array(self.updates, np.int64), counts)
        # What contains another comes before it.
        order = np.lexsort((-whole[:, 2], whole[:, 1]))
        spans = whole[order].astype(np.float64)
        spans[:, 1:] /= 1e6
        cpu_s, error_s = self.cpu / 1e6, self.clock_error / 1e6
        return Trace(
            name, self.pid, spans, numbers[order], cpu_s, self.left_out, error_s
        )


def read_traces(path: Path) -> Traces:
    """A run's timeline.

    Raises:
        ConfigError: there is none, or it is damaged or none of shoal's.
    """
    try:
        with open_regular(path, at_most=TIMELINE_BYTES) as file:
            return _Reader().read(list(lines_of(file)))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path.parent} has no timeline: set timeline when it is trained, such as --timeline 20 for its last 20 "
            "updates"
        ) from error
    except ConfigError:
        raise
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{path} is damaged: {sentence(error)}") from error


class _Reader:
    """Reads the lines of a file in their order."""

    def __init__(self) -> None:
        self._pieces: dict[str, _Pieces] = {}
        self._update = -1
        self._count = 0
        self._numbers: list[int] = []
        self._times: list[int] = []
        self._cores: dict[int, int] = {}

    def read(self, lines: list[bytes | None]) -> Traces:
        if not lines:
            raise ValueError("it is empty")
        if len(lines) > MOST_READ:
            raise ValueError(f"it has more than {MOST_READ:,} lines")
        for number, data in enumerate(lines):
            try:
                self._take(number, data)
            except ValueError as error:
                raise ValueError(f"line {number + 1}: {error}") from error
        if LEARNER not in self._pieces:
            raise ValueError("it holds no update of a learner")
        traces = [piece.trace(name) for name, piece in self._pieces.items()]
        traces.sort(key=lambda trace: (trace.name != LEARNER, _order(trace.name)))
        return Traces(
            first=self._numbers[0],
            last=self._numbers[-1],
            begun_s=min(self._times) / 1e6,
            ended_s=max(self._times) / 1e6,
            core_s={core: busy / 1e6 for core, busy in sorted(self._cores.items())},
            processes=traces,
        )

    def _take(self, number: int, data: bytes | None) -> None:
        if data is None:
            raise ValueError("it is too long")
        found = parse_json(data)
        if not isinstance(found, dict):
            raise ValueError("it is no table")
        line = cast("dict[str, Any]", found)
        if number == 0:
            if line.get("timeline") != FORMAT or line.get("kinds") != list(KINDS):
                raise ValueError(
                    "another version of shoal wrote it; use that one to read it"
                )
        elif "update" in line:
            self._begin(line)
        else:
            self._add(line)

    def _begin(self, line: Mapping[str, Any]) -> None:
        self._update = _whole(line, "update")
        if self._numbers and self._update <= self._numbers[-1]:
            raise ValueError("its updates are not in their order")
        if len(self._numbers) >= MOST_UPDATES:
            raise ValueError(f"it has more than {MOST_UPDATES:,} updates")
        self._numbers.append(self._update)
        begun, ended = _whole(line, "begun"), _whole(line, "ended")
        if ended < begun:
            raise ValueError("an update ends before it begins")
        self._times += [begun, ended]
        cores = line.get("cores")
        if not isinstance(cores, dict):
            raise ValueError("cores is no table")
        for core in cast("dict[str, object]", cores):
            if not core.isdecimal() or int(core) >= MOST_CORES:
                raise ValueError(f"{core[:NAME]!r} is no core")
            busy = _whole(cast("Mapping[str, Any]", cores), core)
            self._cores[int(core)] = self._cores.get(int(core), 0) + busy

    def _add(self, line: Mapping[str, Any]) -> None:
        name = line.get("process")
        if not isinstance(name, str) or not name.isprintable() or len(name) > NAME:
            raise ValueError("it names no process")
        if self._update < 0:
            raise ValueError("a process comes before the first update")
        piece = self._pieces.get(name)
        if piece is None:
            if len(self._pieces) >= MOST_PROCESSES:
                raise ValueError(f"it has more than {MOST_PROCESSES:,} processes")
            piece = self._pieces[name] = _Pieces(_whole(line, "pid"))
        spans = _spans(line.get("spans"))
        self._count += len(spans)
        if self._count > MOST_READ:
            raise ValueError(f"it has more than {MOST_READ:,} spans")
        piece.pid = _whole(line, "pid")  # another process may have taken its place
        piece.spans.append(spans)
        piece.updates.append(self._update)
        piece.cpu += _whole(line, "cpu")
        piece.left_out += _whole(line, "left_out")
        error = float("inf")
        if line.get("clock_error") is not None:
            error = _whole(line, "clock_error")
        piece.clock_error = error


def _whole(line: Mapping[str, Any], name: str) -> int:
    value = line.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is no whole number")
    if not 0 <= value <= LONGEST_US:
        raise ValueError(f"{name} cannot be {value}")
    return value


def _spans(value: object) -> NDArray[np.int64]:
    """Spans [n, 3]; ValueError where they are none."""
    if not isinstance(value, list) or len(cast("list[object]", value)) > MOST_SPANS:
        raise ValueError("its spans are no list, or too many")
    rows = cast("list[object]", value)
    for row in rows:
        if not isinstance(row, list) or len(cast("list[object]", row)) != 3:
            raise ValueError("a span is not three numbers")
        for part in cast("list[object]", row):
            if type(part) is not int or abs(part) > LONGEST_US:
                raise ValueError("a span is not three whole numbers")
    spans = np.array(rows, np.int64).reshape(-1, 3)
    kinds, begun, ended = spans.T
    if ((kinds < 0) | (kinds >= len(KINDS))).any():
        raise ValueError("a span is of no kind")
    if (ended < begun).any():
        raise ValueError("a span ends before it begins")
    return spans


def _order(name: str) -> tuple[str, int]:
    """Actors by their numbers."""
    word, _, number = name.rpartition(" ")
    if number.isdecimal() and len(number) < 9:
        return word, int(number)
    return name, 0
