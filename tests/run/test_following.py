"""Following a metrics file that grows, is cut, replaced, deleted, damaged, or too large for every line of it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shoal.run import following
from shoal.run.following import Follower
from shoal.run.reading import DamagedError
from shoal.run.records import read_metrics

if TYPE_CHECKING:
    from pathlib import Path


def text(*numbers: int, **more: Any) -> str:
    """A line for each number."""
    made = [{"step": 10 * n, "update": n, "time/elapsed": n / 2, "loss/x": float(n)} | more for n in numbers]
    return "".join(json.dumps(line) + "\n" for line in made)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def values(follower: Follower, key: str = "loss/x", axis: str = "step") -> list[list[float]]:
    _, x, y = follower.series(key, axis)
    return np.stack([x, y], 1).tolist()


def test_it_grows(path: Path) -> None:
    """Whole lines are taken once; a torn one when it is whole."""
    follower = Follower(path)
    assert follower.poll() is False
    assert (len(follower), follower.gone) == (0, False)
    path.write_text(text(0, 1) + '{"step": 20, "lo')
    follower.poll()
    generation = follower.generation
    assert values(follower) == [[0, 0], [10, 1]]
    with path.open("a") as file:
        file.write('ss/x": null, "other": 7}\n' + text(3))
    follower.poll()
    assert values(follower) == [[0, 0], [10, 1], [30, 3]]
    assert values(follower, "other") == [[20, 7]]
    assert values(follower, axis="seconds") == [[0, 0], [0.5, 1], [1.5, 3]]
    assert follower.last() == {"step": 30, "update": 3, "time/elapsed": 1.5, "loss/x": 3.0, "other": 7}
    assert follower.generation == generation
    assert follower.warning == ""


def test_it_is_what_is_read_at_once(path: Path) -> None:
    """Piece by piece or at once: the same lines, and the same that are damaged."""
    lines = [*text(*range(50)).splitlines(), "nonsense", '{"step": -1}', '{"loss/x": 1}', "x" * 300_000, text(60)]
    follower = Follower(path)
    data = "\n".join(lines).encode()
    path.write_bytes(b"")
    for at in range(0, len(data), 777):
        with path.open("ab") as file:
            file.write(data[at : at + 777])
        if at % 7770 == 0 or at + 777 > len(data):
            follower.poll()
    whole = read_metrics(path)
    assert len(follower) == len(whole.lines) == 51
    assert [y for _, y in values(follower)] == [line["loss/x"] for line in whole.lines]
    assert follower.warning.startswith(("4 lines were damaged", "5 lines were damaged"))
    assert "line 51" in follower.warning


def test_it_is_cut(path: Path) -> None:
    """By a resumed run, also where that has written more than there was since."""
    path.write_text(text(*range(10)))
    follower = Follower(path)
    follower.poll()
    before = follower.generation
    with path.open("r+") as file:
        file.truncate(len(text(*range(5))))
    follower.poll()
    assert (len(follower), follower.generation) == (5, before + 1)
    with path.open("r+") as file:
        file.truncate(len(text(0, 1)))
        file.seek(0, os.SEEK_END)
        file.write(text(*range(2, 30), other=1.0))
    follower.poll()
    assert (len(follower), follower.generation) == (30, before + 2)
    assert len(values(follower, "other")) == 28


def test_it_is_replaced_and_deleted(path: Path, tmp_path: Path) -> None:
    path.write_text(text(*range(10)))
    follower = Follower(path)
    follower.poll()
    path.unlink()
    follower.poll()
    assert (follower.gone, len(follower)) == (True, 10)
    other = tmp_path / "other"
    other.write_text(text(*range(10), other=1.0))
    other.rename(path)
    follower.poll()
    assert (follower.gone, len(values(follower, "other"))) == (False, 10)


def test_a_glance(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a large file, spread over it, and then all of it."""
    monkeypatch.setattr(following, "GLANCE_BYTES", 1000)
    path.write_text(text(*range(1000)))
    follower = Follower(path)
    assert follower.poll() is True
    some = [y for _, y in values(follower)]
    assert 10 < len(some) < 30
    assert some[0] < 60
    assert some[-1] > 940
    generation = follower.generation
    assert follower.poll() is False
    assert [y for _, y in values(follower)] == list(range(1000))
    assert follower.generation == generation + 1
    assert follower.poll() is False
    assert follower.generation == generation + 1


def test_too_many_numbers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other line is dropped, again and again; what is kept is spread over the file and right."""
    monkeypatch.setattr(following, "MOST_NUMBERS", 400)
    path.write_text(text(*range(1000)))
    follower = Follower(path)
    follower.poll()
    kept = values(follower)
    assert 50 <= len(kept) <= 100
    assert all(x == 10 * y for x, y in kept)
    steps = np.diff([x for x, _ in kept])
    assert (steps == steps[0]).all()
    with path.open("a") as file:
        file.write(text(*range(1000, 2000)))
    follower.poll()
    again = values(follower)
    assert again[-1][0] > 19_000
    assert all(x == 10 * y for x, y in again)


def test_too_many_names(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first are kept; memory stays bounded whatever a stranger's file holds."""
    monkeypatch.setattr(following, "LINE_NUMBERS", 10)
    path.write_text("".join(text(n, **{f"loss/{n}": 1.0}) for n in range(50)))
    follower = Follower(path)
    follower.poll()
    assert len(follower.keys()) <= 10
    assert len(follower.last()) <= 10
    assert len(values(follower)) == 50


def test_clocks_that_begin_again(path: Path) -> None:
    """A resumed run counts its seconds anew: its first line is told apart."""
    path.write_text("".join(text(n, **{"time/learning": s}) for n, s in [(0, 1.0), (1, 9.0), (2, 0.5), (3, 3.0)]))
    follower = Follower(path)
    follower.poll()
    assert follower.since_start()["update"] == 2


def test_it_is_no_file(path: Path, tmp_path: Path) -> None:
    """A link, a pipe: refused at once, in words."""
    (tmp_path / "secret").write_text(text(1))
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(DamagedError, match="is a link"):
        Follower(path).poll()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DamagedError, match="is a pipe"):
        Follower(path).poll()
