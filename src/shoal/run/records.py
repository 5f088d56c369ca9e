"""Records of a run as they are read: `run.json` and `metrics.jsonl`, with types checked and damage named."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from shoal.run.reading import (
    INT64,
    STATUS_BYTES,
    open_regular,
    parse_json,
    read_json,
    sentence,
)
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

METRICS_BYTES = 256 << 20
"""What metrics.jsonl may take; a run of a thousand lines takes one million bytes."""
PARSED_BYTES = 4 << 20
"""Of a larger file, only every so many lines are read that they take about as much as this."""
LINE_BYTES, LINE_NUMBERS, NAME = 256 << 10, 2000, 200
"""What one line of metrics may take, the numbers on it, and the letters of a name."""
MOST_NUMBERS = 1_000_000
"""Of all lines; where there are more, every other line is passed over, then three of four, and so on."""
HUGE = 1e100
"""Numbers beyond it are shown as none: nothing can be drawn to scale beside them."""
Line = dict[str, Any]
"""A line of metrics: numbers by name, None where one was not finite."""

WHOLE = ("seed", "steps", "updates", "episodes", "pid", "interventions")
NUMBERS = (
    "return",
    "seconds",
    "threshold",
    "greedy_return",
    "greedy_std",
    "greedy_cost",
    "greedy_cost_std",
    "greedy_cost_worst",
    "process_started",
    "paused_at",
    "ended_at",
)
TEXTS = (
    "state",
    "env",
    "algo",
    "stop_reason",
    "reason",
    "kept",
    "host",
    "paused_by",
)


def read_status(path: Path) -> dict[str, Any]:
    """What run.json says; empty where there is none. ConfigError where it is damaged; `resume` needs none."""
    try:
        status = read_json(path, at_most=STATUS_BYTES)
        if not isinstance(status, dict):
            raise ValueError("it is no table")
        found = cast("dict[str, Any]", status)
        _check_status(found)
    except FileNotFoundError:
        return {}
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path} is damaged; delete it ({error})") from error
    return found


def _check_status(status: Mapping[str, object]) -> None:
    for name, value in status.items():
        fits = True
        if name in WHOLE:
            fits = _is_whole(value)
        elif name in NUMBERS:
            fits = value is None or _is_number(value)
        elif name in TEXTS:
            fits = isinstance(value, str)
        elif name in ("versions", "usage"):
            fits = isinstance(value, Mapping)
        if not fits:
            raise ValueError(f"{name} cannot be {str(value)[:40]!r}")


def _is_whole(value: object) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return 0 <= value < INT64


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < INT64


@dataclass(slots=True)
class Metrics:
    """The lines of a metrics file that are whole, and what is to be said of the others."""

    lines: list[Line] = field(default_factory=list)
    skipped: int = 0
    first: str = ""
    """Which of the skipped lines came first, and what is wrong with it."""
    _every: int = 1
    _numbers: int = 0
    _passed: tuple[int, bytes] | None = None

    def add(self, number: int, data: bytes) -> None:
        """Takes in the line of this number, or counts it as damaged."""
        if number % self._every:
            self._passed = number, data
            return
        self._passed = None
        try:
            line = checked_line(data)
        except ValueError as error:
            self.skip(number, error)
            return
        self.lines.append(line)
        self._numbers += len(line)
        if self._numbers > MOST_NUMBERS:
            del self.lines[1::2]
            self._every *= 2
            self._numbers = sum(map(len, self.lines))

    def sample(self, size: int) -> None:
        """Passes over lines of a file of `size` bytes that is too large to be read line by line."""
        self._every = max(1, -(-size // PARSED_BYTES))

    def skip(self, number: int, error: ValueError) -> None:
        """Counts a damaged line."""
        self.skipped += 1
        self.first = self.first or f"line {number + 1}: {sentence(error)}"

    def finish(self) -> Metrics:
        """Adds the last line where it was passed over; it tells where a run stands."""
        if self._passed is not None:
            number, data = self._passed
            self._every = 1
            self.add(number, data)
        return self

    @property
    def warning(self) -> str:
        """What is to be said of damaged lines; empty where there are none."""
        if not self.skipped:
            return ""
        if self.skipped == 1:
            return f"1 line was damaged and left out, the first is {self.first}"
        return f"{self.skipped:,} lines were damaged and left out, the first is {self.first}"


def read_metrics(path: Path) -> Metrics:
    """The lines of a metrics file, read one by one; a torn last line is left out, damaged ones are counted.

    Raises:
        ConfigError: it is no file, a link, or larger than `METRICS_BYTES`.
    """
    found = Metrics()
    try:
        file = open_regular(path, at_most=METRICS_BYTES)
    except FileNotFoundError:
        return found
    with file:
        found.sample(os.fstat(file.fileno()).st_size)
        for number, line in enumerate(lines_of(file)):
            if line is None:
                found.skip(number, ValueError(f"it has more than {LINE_BYTES:,} bytes"))
            else:
                found.add(number, line)
    return found.finish()


def lines_of(file: BinaryIO) -> Iterator[bytes | None]:
    """The whole lines of a file without their ends; None for one that is too long."""
    while line := file.readline(LINE_BYTES):
        whole = line.endswith(b"\n")
        if not whole and len(line) < LINE_BYTES:
            return  # torn
        if whole:
            yield line[:-1]
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(LINE_BYTES)
        yield None


def checked_line(data: bytes) -> Line:
    """A line of metrics: numbers by name, with its step; ValueError where it is something else."""
    found = parse_json(data)
    if not isinstance(found, dict):
        raise ValueError("it is no table")
    line = cast("dict[str, object]", found)
    if len(line) > LINE_NUMBERS:
        raise ValueError(f"it has more than {LINE_NUMBERS:,} numbers")
    kept: Line = {}
    for name, value in line.items():
        if len(name) > NAME or not name.isprintable():
            raise ValueError("a name is no name of a number")
        if value is not None and not _is_number(value):
            raise ValueError(f"{name} is no number")
        kept[sys.intern(name)] = None if _is_beyond(value) else value
    for name in ("step", "update", "version"):
        if name in kept and not _is_whole(kept[name]):
            raise ValueError(f"{name} is no count")
    if "step" not in kept:
        raise ValueError("it has no step")
    return kept


def _is_beyond(value: object) -> bool:
    if not isinstance(value, float):
        return False
    return not math.isfinite(value) or abs(value) > HUGE
