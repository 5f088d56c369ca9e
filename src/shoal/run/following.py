"""Following: the numbers of a metrics file as columns, read on from where the last reading ended."""

from __future__ import annotations

import math
import os
from array import array
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from shoal.run.reading import open_regular, sentence
from shoal.run.records import (
    LINE_BYTES,
    LINE_NUMBERS,
    METRICS_BYTES,
    MOST_NUMBERS,
    checked_line,
    lines_of,
)

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

    from shoal.run.records import Line
    from shoal.types import Floats

GLANCE_BYTES = 128 << 10
"""Of a file that is larger, so much is read at first, evenly spread: a picture before all of it is known."""
TAIL = 256
"""Bytes before the place of reading that are compared: a file that was cut and written anew differs in them."""
AXES = {"step": "step", "update": "update", "seconds": "time/elapsed"}
"""What curves can be drawn over, and the key that holds it."""


@dataclass(slots=True)
class Column:
    """One number of a run: in which lines it stands, and what it was there."""

    at: array[int] = field(default_factory=lambda: array("l"))
    value: array[float] = field(default_factory=lambda: array("d"))

    def thin(self) -> None:
        """Drops every other line's value; lines are counted anew."""
        kept = [place for place, line in enumerate(self.at) if line % 2 == 0]
        self.value = array("d", [self.value[place] for place in kept])
        self.at = array("l", [self.at[place] // 2 for place in kept])


@dataclass(slots=True)
class Columns:
    """The numbers of a file's lines, by name."""

    by_key: dict[str, Column] = field(default_factory=dict[str, Column])
    axes: dict[str, array[float]] = field(
        default_factory=lambda: {name: array("d") for name in AXES}
    )
    """By name of `AXES`: one value a line, NaN where a line has none."""
    last: Line = field(default_factory=dict[str, "float | None"])
    """Every number as it stood last."""
    restarted: Line = field(default_factory=dict[str, "float | None"])
    """The last line in which the clocks of `time/*` had begun again: the first of this process."""
    numbers: int = 0
    skipped: int = 0
    first_damage: str = ""

    def __len__(self) -> int:
        return len(self.axes["step"])

    def add(self, line: Line) -> bool:
        """Takes in a line; whether every other one had to be dropped for it."""
        place = len(self)
        for name, key in AXES.items():
            value = line.get(key)
            self.axes[name].append(math.nan if value is None else value)
        for key, value in line.items():
            if value is None:
                continue
            column = self.by_key.get(key)
            if column is None:
                if len(self.by_key) >= LINE_NUMBERS:
                    continue
                column = self.by_key[key] = Column()
            column.at.append(place)
            column.value.append(value)
        if not self.last or _began_again(self.last, line):
            self.restarted = line
        self.last |= {key: line[key] for key in line if key in self.by_key}
        self.numbers += len(line)
        if self.numbers <= MOST_NUMBERS:
            return False
        self._thin()
        return True

    def skip(self, number: int, error: ValueError) -> None:
        """Counts a damaged line."""
        self.skipped += 1
        said = f"line {number + 1}: {sentence(error)}"
        self.first_damage = self.first_damage or said

    def _thin(self) -> None:
        for name, values in self.axes.items():
            self.axes[name] = values[::2]
        for column in self.by_key.values():
            column.thin()
        self.numbers //= 2


class Follower:
    """Follows `metrics.jsonl` of a run that may grow, be cut by a resumed run, be replaced, or go away.

    `poll` reads what was added. Of a large file it reads an evenly spread part at first; the next `poll` reads all of
    it. `generation` grows whenever what was read before no longer holds. Any thread may call any method.
    """

    def __init__(self, path: Path) -> None:
        """`path`: the metrics file, which need not be there yet."""
        self.path = path
        self.generation = 0
        self.gone = False
        """Whether the file was there and is no longer."""
        self._columns = Columns()
        self._lock = Lock()
        """Held while columns change or are read."""
        self._reading = Lock()
        """Held by whoever reads the file."""
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._number = 0
        self._every = 1
        self._tail = b""
        self._glanced = False

    def poll(self) -> bool:
        """Reads what was added since; whether there is more to read at once.

        Raises:
            DamagedError: it is no file, a link, or larger than `METRICS_BYTES`.
        """
        with self._reading:
            try:
                file = open_regular(self.path, at_most=METRICS_BYTES)
            except FileNotFoundError:
                self.gone = self._file is not None
                return False
            with file:
                return self._poll(file)

    def _poll(self, file: BufferedReader) -> bool:
        self.gone = False
        found = os.fstat(file.fileno())
        which = found.st_dev, found.st_ino
        if not self._is_same(file, which, found.st_size):
            self._begin(which)
            if found.st_size > GLANCE_BYTES:
                self._glance(file, found.st_size)
                return True
        if not self._glanced:
            self._read_on(file, self._columns)
            return False
        whole = Columns()
        self._read_on(file, whole)
        with self._lock:
            self._columns = whole
            self._glanced = False
            self.generation += 1
        return False

    def keys(self) -> list[str]:
        """The names of numbers, in the order of their appearance."""
        with self._lock:
            return [key for key in self._columns.by_key if key not in AXES]

    def __len__(self) -> int:
        return len(self._columns)

    def last(self) -> Line:
        """Every number as it stood last."""
        with self._lock:
            return dict(self._columns.last)

    def since_start(self) -> Line:
        """The first line that the process now training wrote; empty before there is one."""
        with self._lock:
            return dict(self._columns.restarted)

    def series(self, key: str, axis: str) -> tuple[int, Floats, Floats]:
        """One number over an axis: the generation, x [n] and y [n], both finite.

        Args:
            key: a name of `keys`; of an unknown one there are no values.
            axis: a name of `AXES`.
        """
        with self._lock:
            column = self._columns.by_key.get(key)
            if column is None:
                return self.generation, np.empty(0), np.empty(0)
            over = np.array(self._columns.axes[axis])
            x, y = over[np.array(column.at)], np.array(column.value)
            generation = self.generation
        kept = np.isfinite(x)
        if kept.all():
            return generation, x, y
        return generation, x[kept], y[kept]

    @property
    def warning(self) -> str:
        """What is to be said of damaged lines; empty where there are none."""
        count = self._columns.skipped
        if not count:
            return ""
        some = "1 line was" if count == 1 else f"{count:,} lines were"
        return f"{some} damaged and left out, the first is {self._columns.first_damage}"

    def _is_same(self, file: BufferedReader, which: tuple[int, int], size: int) -> bool:
        """Whether the file still begins with what was read of it."""
        if self._file != which or size < self._offset:
            return False
        before = os.pread(
            file.fileno(), len(self._tail), self._offset - len(self._tail)
        )
        return before == self._tail

    def _begin(self, which: tuple[int, int]) -> None:
        with self._lock:
            self._columns = Columns()
            self.generation += 1
        self._file = which
        self._offset = self._number = 0
        self._every = 1
        self._tail = b""
        self._glanced = False

    def _glance(self, file: BufferedReader, size: int) -> None:
        """Reads lines evenly spread over the file; the place of reading stays at its beginning."""
        every = -(-size // GLANCE_BYTES)
        for number, data in enumerate(lines_of(file)):
            if data is not None and number % every == 0:
                self._add(self._columns, number, data)
        self._glanced, self._every = True, 1

    def _read_on(self, file: BufferedReader, columns: Columns) -> None:
        file.seek(self._offset)
        for data in lines_of(file):
            if data is None:
                error = ValueError(f"it has more than {LINE_BYTES:,} bytes")
                columns.skip(self._number, error)
            elif self._number % self._every == 0:
                self._add(columns, self._number, data)
            self._number += 1
            self._offset = file.tell()
        begin = max(0, self._offset - TAIL)
        self._tail = os.pread(file.fileno(), self._offset - begin, begin)

    def _add(self, columns: Columns, number: int, data: bytes) -> None:
        try:
            line = checked_line(data)
        except ValueError as error:
            columns.skip(number, error)
            return
        with self._lock:
            if columns.add(line):
                self._every *= 2
                self.generation += 1


def _began_again(last: Line, line: Line) -> bool:
    """Whether the clocks of a process stand lower than they did: another one trains."""
    for key in ("time/learning", "time/environment", "time/acting"):
        now, before = line.get(key), last.get(key)
        if now is not None and before is not None and now < before:
            return True
    return False
