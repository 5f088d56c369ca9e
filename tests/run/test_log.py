"""Metrics: whole lines or none, rewinding, numbers that JSON lacks."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from shoal.run.log import Log, read
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
