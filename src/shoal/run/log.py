"""The metrics of a run: one JSON object a line, appended whole, and copied to TensorBoard or a tracker."""

from __future__ import annotations

import importlib
import json
import math
import os
from typing import TYPE_CHECKING, Any, Protocol

from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

TRACKERS = ("none", "wandb", "trackio")


class Sink(Protocol):
    """Somewhere else that metrics go."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Takes the numbers of one line."""
        ...

    def close(self) -> None:
        """Flushes."""
        ...


class TensorBoard:
    """TensorBoard's event files in the run directory."""

    def __init__(self, directory: Path, purge_step: int) -> None:
        """`purge_step`: events from this step on are dropped, as a resumed run writes them again."""
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingTypeStubs]

        self._summary: Any = importlib.import_module("tensorboardX.proto.summary_pb2").Summary
        self._writer: Any = SummaryWriter(str(directory), purge_step=purge_step or None, flush_secs=10)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds one event with a scalar for each number."""
        kind = self._summary
        summary = kind(value=[kind.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._writer.file_writer.add_summary(summary, step)

    def close(self) -> None:
        """Flushes."""
        self._writer.close()


class Tracker:
    """Weights & Biases or trackio, which share one interface; each is an extra of the package."""

    def __init__(self, kind: str, *, name: str, config: dict[str, Any]) -> None:
        """ConfigError when the package is not installed."""
        try:
            self._module: Any = importlib.import_module(kind)
        except ModuleNotFoundError as error:
            raise ConfigError(f"{kind} is not installed: pip install 'shoal-rl[{kind}]'") from error
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
        """Opens the file; a torn last line is cut off."""
        self.path, self.sinks = path, sinks
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._end = os.fstat(self._file).st_size
        whole = _whole_lines(path, self._end)
        if whole != self._end:
            self.rewind(whole)

    def position(self) -> int:
        """Bytes written so far: what `rewind` takes."""
        return self._end

    def rewind(self, position: int) -> None:
        """Forgets the lines after `position`: a resumed run writes them again."""
        if position > self._end:
            raise ValueError(f"{self.path} has {self._end} bytes, but the checkpoint was taken at {position}")
        os.ftruncate(self._file, position)
        self._end = position

    def write(self, record: dict[str, Any]) -> None:
        """Appends one line; its numbers also go to the sinks. Non-finite numbers become null."""
        clean = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in record.items()}
        line = (json.dumps(clean) + "\n").encode()
        written = os.write(self._file, line)
        if written != len(line):
            os.ftruncate(self._file, self._end)
            raise OSError(f"only {written} of {len(line)} bytes fitted into {self.path}: is the disk full?")
        self._end += written
        numbers = {k: float(v) for k, v in clean.items() if isinstance(v, int | float) and "/" in k}
        for sink in self.sinks:
            sink.write(int(record["step"]), numbers)

    def close(self) -> None:
        """Closes the file and the sinks."""
        for sink in self.sinks:
            sink.close()
        os.close(self._file)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a torn last line is left out."""
    if not path.exists():
        return []
    text = path.read_bytes()
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def _whole_lines(path: Path, size: int) -> int:
    return path.read_bytes().rfind(b"\n") + 1 if size else 0
