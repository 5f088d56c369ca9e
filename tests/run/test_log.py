"""Metrics: whole lines or none, rewinding, numbers that JSON lacks, TensorBoard's events, trackers."""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from shoal.run.log import Log, TensorBoard, Tracker, read
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Memory:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.closed = 0

    def write(self, step: int, values: dict[str, float]) -> None:
        self.lines.append((step, values))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The metrics file of a run."""
    return tmp_path / "metrics.jsonl"


def test_lines_and_sinks(path: Path) -> None:
    """A record is one line; its numbers with a room in their name reach the sinks, non-finite ones become null."""
    memory = Memory()
    log = Log(path, [memory])
    log.write({"step": 10, "loss/value": 0.5, "loss/policy": float("nan"), "speed/sps": float("inf"), "note": "x"})
    log.write({"step": 20, "episode/count": 3})
    log.close()
    assert path.read_bytes().splitlines() == [
        b'{"step": 10, "loss/value": 0.5, "loss/policy": null, "speed/sps": null, "note": "x"}',
        b'{"step": 20, "episode/count": 3}',
    ]
    assert memory.lines == [(10, {"loss/value": 0.5}), (20, {"episode/count": 3.0})]
    log.close()
    assert memory.closed == 1


def test_torn_last_line_is_cut(path: Path) -> None:
    """A line without its end is left out when reading, and cut off when the file is opened again."""
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"ste')
    assert [line["step"] for line in read(path)] == [1, 2]
    log = Log(path, [])
    assert log.position() == 24
    log.write({"step": 3})
    log.close()
    assert [line["step"] for line in read(path)] == [1, 2, 3]


def test_only_a_torn_line(path: Path) -> None:
    """A file that holds no whole line is emptied; one that is not there has no lines."""
    assert read(path) == []
    path.write_bytes(b'{"ste')
    assert read(path) == []
    Log(path, []).close()
    assert path.read_bytes() == b""


def test_rewind(path: Path) -> None:
    """Lines after the position are forgotten; a position past the end is refused."""
    log = Log(path, [])
    log.write({"step": 1})
    kept = log.position()
    log.write({"step": 2})
    log.rewind(kept)
    log.write({"step": 3})
    log.sync()
    assert [line["step"] for line in read(path)] == [1, 3]
    with pytest.raises(ValueError, match="has 24 bytes, fewer than 25"):
        log.rewind(25)
    log.close()


def test_short_write_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only a part fits, the part is taken back and the error says that the disk is full."""
    log = Log(path, [])
    log.write({"step": 1})
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:5]))
    with pytest.raises(OSError, match="only 5 of 12 bytes fitted") as caught:
        log.write({"step": 2})
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert path.read_bytes() == b'{"step": 1}\n'
    log.write({"step": 3})
    log.close()
    assert [line["step"] for line in read(path)] == [1, 3]


def test_one_writer(path: Path) -> None:
    """A second writer is refused while the first is there."""
    log = Log(path, [])
    with pytest.raises(ConfigError, match="another process trains in"):
        Log(path, [])
    log.close()
    Log(path, []).close()


def events(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """What TensorBoard's event files of a folder hold, in the order in which they were begun."""
    event: Any = importlib.import_module("tensorboardX.proto.event_pb2").Event
    found: list[tuple[int, dict[str, float]]] = []
    for path in sorted(folder.iterdir(), key=lambda p: int(p.suffix[1:])):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            one = event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            values = {value.tag: value.simple_value for value in one.summary.value}
            found.append((one.step, values | ({"restart": 1.0} if one.HasField("session_log") else {})))
    return found


def test_tensorboard(tmp_path: Path) -> None:
    """Events are written as TensorBoard reads them; a resumed run has its own file, which purges from its step on."""
    folder = tmp_path / "tensorboard"
    board = TensorBoard(folder, None)
    for step in (10, 20):
        board.write(step, {"loss/value": step / 8, "speed/sps": 1.0})
    board.close()
    first = [(0, {}), (10, {"loss/value": 1.25, "speed/sps": 1.0}), (20, {"loss/value": 2.5, "speed/sps": 1.0})]
    assert events(folder) == first
    again = TensorBoard(folder, 10)
    again.write(10, {"loss/value": 3.0})
    again.close()
    assert events(folder) == [*first, (0, {}), (10, {"restart": 1.0}), (10, {"loss/value": 3.0})]


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_missing_tracker_names_its_extra(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that is not installed: ConfigError says how to install it."""
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ConfigError, match=rf"{kind} is not installed: pip install 'shoal-rl\[{kind}\]'"):
        Tracker(kind, name="run", config={})


def test_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker gets the run's name and configuration, each line, and its end."""
    calls: list[Any] = []
    fake = SimpleNamespace(
        init=lambda **given: calls.append(given),
        log=lambda values, step: calls.append((step, values)),
        finish=lambda: calls.append("end"),
    )
    monkeypatch.setitem(sys.modules, "trackio", fake)
    tracker = Tracker("trackio", name="a/b", config={"seed": 1})
    tracker.write(5, {"loss/value": 1.0})
    tracker.close()
    assert json.dumps(calls) == json.dumps(
        [{"project": "shoal", "name": "a/b", "config": {"seed": 1}}, [5, {"loss/value": 1.0}], "end"]
    )
