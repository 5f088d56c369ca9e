"""The metrics of a run: one JSON object a line, appended whole, and copied to TensorBoard or a tracker."""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FLUSH_S = 10.0
"""Seconds after which TensorBoard sees what was written."""


class Sink(Protocol):
    """Somewhere else that metrics go."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Takes the numbers of one line."""
        ...

    def close(self) -> None:
        """Flushes."""
        ...


class TensorBoard:
    """TensorBoard's event files in the run directory, written in this thread: its errors are the run's."""

    def __init__(self, directory: Path, purge_step: int | None) -> None:
        """`purge_step`: events from this step on are dropped, as a resumed run writes them again."""
        from tensorboardX.event_file_writer import EventsWriter  # pyright: ignore[reportMissingTypeStubs]

        self._events: Any = importlib.import_module("tensorboardX.proto.event_pb2")
        self._summary: Any = importlib.import_module(
            "tensorboardX.proto.summary_pb2"
        ).Summary
        directory.mkdir(exist_ok=True)
        number = len(list(directory.iterdir()))
        self._writer: Any = EventsWriter(str(directory / "events"), f".{number}")
        self._flushed = time.monotonic()
        if purge_step is not None:
            session = self._events.SessionLog
            start = self._events.Event(
                step=purge_step,
                wall_time=time.time(),
                session_log=session(status=session.START),
            )
            self._writer.write_event(start)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds one event with a scalar for each number."""
        kind = self._summary
        summary = kind(
            value=[
                kind.Value(tag=name, simple_value=value)
                for name, value in values.items()
            ]
        )
        self._writer.write_event(
            self._events.Event(step=step, wall_time=time.time(), summary=summary)
        )
        if time.monotonic() - self._flushed > FLUSH_S:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Flushes; the file is closed even where that fails."""
        try:
            self._writer.flush()
        finally:
            self._writer._py_recordio_writer.close()


class Tracker:
    """Weights & Biases or trackio, which share one interface; each is an extra of the package."""

    def __init__(self, kind: str, *, name: str, config: dict[str, Any]) -> None:
        """ConfigError when the package is not installed."""
        try:
            self._module: Any = importlib.import_module(kind)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{kind} is not installed: pip install 'shoal-rl[{kind}]'"
            ) from error
        self._module.init(project="shoal", name=name, config=config)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs the numbers at `step`."""
        self._module.log(values, step=step)

    def close(self) -> None:
        """Ends the tracked run."""
        self._module.finish()


class Log:
    """`metrics.jsonl`: a line is appended by one write, so a crash leaves whole lines and at most one torn tail."""

    def __init__(self, path: Path, sinks: list[Sink]) -> None:
        """Opens the file, for this process alone; a torn last line is cut off.

        Raises:
            ConfigError: another process writes to it.
        """
        self.path, self.sinks = path, sinks
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise ConfigError(
                f"another process trains in {path.parent}; wait for it, or end it first"
            ) from error
        except OSError:  # a file system without locks
            pass
        self._end = os.fstat(self._file).st_size
        whole = _whole_lines(path, self._end)
        if whole != self._end:
            self.rewind(whole)

    def position(self) -> int:
        """Bytes written so far: what `rewind` takes."""
        return self._end

    def sync(self) -> None:
        """Makes what was written durable: a checkpoint counts on it."""
        os.fsync(self._file)

    def rewind(self, position: int) -> None:
        """Forgets the lines after `position`: a resumed run writes them again."""
        if position > self._end:
            raise ValueError(
                f"{self.path} has {self._end} bytes, fewer than {position}"
            )
        os.ftruncate(self._file, position)
        self._end = position

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
    """The lines of a metrics file; a torn last line is left out."""
    if not path.exists():
        return []
    text = path.read_bytes()
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def _whole_lines(path: Path, size: int) -> int:
    return path.read_bytes().rfind(b"\n") + 1 if size else 0
