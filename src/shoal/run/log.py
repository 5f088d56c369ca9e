"""The metrics of a run: one JSON object a line, appended whole, and handed to what else takes them."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import re
import stat
import sys
from typing import TYPE_CHECKING, Any, Protocol

from shoal.run.records import LINE_BYTES, METRICS_BYTES, lines_of, read_metrics
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Set
    from pathlib import Path

UPDATE = re.compile(rb'"update": (\d{1,18})[,}]')
PART = 1 << 20
"""Bytes that are read at a time."""


class Sink(Protocol):
    """Somewhere else that metrics go."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Takes the numbers of one line."""
        ...

    def close(self) -> None:
        """Flushes."""
        ...


class Log:
    """`metrics.jsonl`: a line is appended by one write, so a crash leaves whole lines and at most one torn tail."""

    def __init__(self, path: Path, sinks: list[Sink]) -> None:
        """Opens the file, for this process alone; a torn last line is cut off.

        Raises:
            ConfigError: another process writes to it, or it is no file, or a link.
        """
        self.path, self.sinks = path, sinks
        self._file = open_to_append(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            said = _holders(path)
            raise ConfigError(
                f"another process{said} trains in {path.parent}; wait for it, or end it first (`shoal stop`)"
            ) from error
        except OSError:  # a file system without locks
            pass
        self._end = os.fstat(self._file).st_size
        if self._end > METRICS_BYTES:
            os.close(self._file)
            raise ConfigError(
                f"{path} has {self._end:,} bytes, more than the {METRICS_BYTES:,} that are read; move it away"
            )
        self._digest = hashlib.sha256()
        self._truncate(_end_of_lines(self._file, self._end))

    def position(self) -> int:
        """Bytes written so far: what `rewind` takes."""
        return self._end

    def sha256(self) -> str:
        """The sha256 of all that was written so far."""
        return self._digest.hexdigest()

    def ends(self) -> list[str]:
        """The sha256 of the first line and of the last: a file that has neither is another run's."""
        begin = _end_of_lines(self._file, self._end - 1)
        last = os.pread(self._file, self._end - begin, begin)
        first = next(_lines(self._file), b"")
        return [_sha256_of_line(line) for line in (first, last) if line]

    def sync(self) -> None:
        """Makes what was written durable: a checkpoint counts on it."""
        os.fsync(self._file)

    def rewind(self, position: int) -> None:
        """Moves the lines after `position` to the end of `metrics.old.jsonl`: a resumed run writes them again."""
        if position > self._end:
            raise ValueError(
                f"{self.path} has {self._end} bytes, fewer than {position}"
            )
        if position < self._end:
            old = open_to_append(self.path.with_name("metrics.old.jsonl"))
            try:
                for part in _parts(self._file, position, self._end):
                    os.write(old, part)
                os.fsync(old)
            finally:
                os.close(old)
            self._truncate(position)

    def cut(
        self,
        position: int,
        sha256: str | None,
        updates: int,
        *,
        ends: Set[str] = frozenset(),
    ) -> list[str]:
        """Rewinds to what was written at the checkpoint of `updates`, always to a line's end; what is to be said.

        Args:
            position: the bytes that were there.
            sha256: theirs; None in checkpoints of earlier versions, which only know the place.
            updates: where the file is not what it was, lines up to this update are kept.
            ends: what `ends` gave; where the file has neither line, it is another run's, and none is kept.
        """
        there = _sha256(self._file, min(position, self._end))
        whole = position <= self._end and sha256 in (None, there)
        if whole and _end_of_lines(self._file, position) == position:
            self.rewind(position)
            return []
        known = not ends or any(
            _sha256_of_line(line) in ends for line in _lines(self._file)
        )
        kept = _end_of_update(self._file, self._end, updates) if known else 0
        said = f"{self.path} is not what this run wrote up to update {updates}"
        if position > self._end:
            said += f": it has {position - self._end:,} bytes less"
        if self._end and not known:
            said += ", and has neither this run's first line nor its last"
        moved = sum(part.count(b"\n") for part in _parts(self._file, kept, self._end))
        self.rewind(kept)
        what = "all of its lines are kept as they are"
        if moved:
            lines = "last line was" if moved == 1 else f"last {moved:,} lines were"
            what = f"its {lines} moved to metrics.old.jsonl"
        return [f"{said}; {what}"]

    def _truncate(self, position: int) -> None:
        os.ftruncate(self._file, position)
        self._end = position
        self._digest = hashlib.sha256()
        for part in _parts(self._file, 0, position):
            self._digest.update(part)

    def write(self, record: dict[str, Any]) -> None:
        """Appends one line; its numbers also go to the sinks. Non-finite numbers become null."""
        clean = {
            k: (None if isinstance(v, float) and not math.isfinite(v) else v)
            for k, v in record.items()
        }
        line = (json.dumps(clean) + "\n").encode()
        written = os.write(self._file, line)
        if written != len(line):
            os.ftruncate(self._file, self._end)
            raise OSError(
                errno.ENOSPC,
                f"only {written} of {len(line)} bytes fitted into {self.path}",
            )
        self._end += written
        self._digest.update(line)
        numbers = {
            k: float(v)
            for k, v in clean.items()
            if isinstance(v, int | float) and "/" in k
        }
        for sink in self.sinks:
            sink.write(int(record["step"]), numbers)

    def close(self) -> None:
        """Closes the sinks and the file; calling it again does nothing.

        While another exception is handled (a full disk, say), a sink that cannot be closed becomes a note to it.
        """
        cause = sys.exception()
        sinks, self.sinks = self.sinks, []
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
        for sink in sinks:
            try:
                sink.close()
            except OSError as error:
                if cause is None:
                    raise
                cause.add_note(f"shoal: {type(sink).__name__} was not closed: {error}")


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a torn last line is left out, and damaged ones are."""
    return read_metrics(path).lines


def open_to_append(path: Path) -> int:
    """The file, made where it is not there; ConfigError for a link, or for what is no file."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise ConfigError(f"{path} is a link or no file; take it away") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ConfigError(f"{path} is no file; take it away")
    return handle


def _parts(file: int, begin: int, end: int) -> Iterator[bytes]:
    """The bytes between two places, a part at a time."""
    while begin < end and (part := os.pread(file, min(end - begin, PART), begin)):
        yield part
        begin += len(part)


def _lines(file: int) -> Iterator[bytes]:
    """The whole lines of a file, without those that are too long for shoal's."""
    with os.fdopen(os.dup(file), "rb") as again:
        again.seek(0)
        yield from (line for line in lines_of(again) if line is not None)


def _sha256_of_line(line: bytes) -> str:
    return hashlib.sha256(line.rstrip(b"\r\n")).hexdigest()


def _sha256(file: int, end: int) -> str:
    digest = hashlib.sha256()
    for part in _parts(file, 0, end):
        digest.update(part)
    return digest.hexdigest()


def _end_of_lines(file: int, size: int) -> int:
    """Where the last whole line within `size` bytes ends."""
    while size > 0:
        begin = max(0, size - PART)
        at = os.pread(file, size - begin, begin).rfind(b"\n")
        if at >= 0:
            return begin + at + 1
        size = begin
    return 0


def _end_of_update(file: int, size: int, updates: int) -> int:
    """Where the last whole line ends that was written by update `updates`, before the first later one."""
    kept = end = 0
    rest, passed = b"", 0
    for part in _parts(file, 0, size):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            end += passed + len(line) + 1
            update = -1 if passed else _update_of(line)
            passed = 0
            if update > updates:
                return kept
            if update >= 0:
                kept = end
        if len(rest) > LINE_BYTES:  # no line of shoal's
            passed, rest = passed + len(rest), b""
    return kept


def _update_of(line: bytes) -> int:
    """The update that a line was written after; -1 where it is damaged: the lines around it tell."""
    found = UPDATE.search(line)
    whole = line.startswith(b"{") and line.rstrip(b"\r").endswith(b"}")
    return int(found[1]) if found is not None and whole else -1


def _holders(path: Path) -> str:
    """The numbers of the processes that have the file open, a child that inherited it among them."""
    found: list[str] = []
    for folder in glob.glob("/proc/[0-9]*/fd"):
        pid = folder.split("/")[2]
        try:
            with os.scandir(folder) as files:
                links = [os.readlink(file.path) for file in files]
        except OSError:  # it has ended, or is somebody else's
            continue
        if os.path.realpath(path) in links and pid != str(os.getpid()):
            found.append(pid)
    return f" (pid {', '.join(found)})" if found else ""
