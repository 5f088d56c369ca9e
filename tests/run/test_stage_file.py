"""The file of a run's stages: what is written is read, and damage is named."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest

from shoal.run.stage_file import (
    FILE,
    Criterion,
    Entry,
    Signature,
    Stages,
    change_stages,
    read_stages,
    write_stages,
)
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENTRY = Entry(
    "simulate",
    "2026-11-30T01:00:00+00:00",
    "a" * 64,
    12,
    "simulator",
    "b" * 64,
    (Criterion("greedy_return", 9.0, 8.0), Criterion("distance", 0.1, 0.2, least=False)),
    ("a note",),
    Signature("A. Sato <b>", "2026-11-30T01:00:00+00:00"),
)


def test_round_trip(tmp_path: Path) -> None:
    assert read_stages(tmp_path) == Stages()
    stages = Stages((ENTRY, replace(ENTRY, withdrawn=Signature("B", "now", "a reason"))))
    write_stages(tmp_path, stages)
    assert read_stages(tmp_path) == stages
    assert ENTRY.holds


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"format": "shoal-stages-1"}', "[" * 100 + "]" * 100])
def test_damage(tmp_path: Path, damage: str) -> None:
    (tmp_path / FILE).write_text(damage, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"stages\.json is damaged or was changed by hand"):
        read_stages(tmp_path)


def test_a_hand_that_signs_in_the_file_is_seen(tmp_path: Path) -> None:
    write_stages(tmp_path, Stages((replace(ENTRY, signed=None),)))
    path = tmp_path / FILE
    said = json.loads(path.read_text(encoding="utf-8"))
    said["entries"][0]["signed"] = {"name": "A", "at": "now", "reason": ""}
    path.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ConfigError, match="its sha256 differs"):
        read_stages(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entry: entry.update(stage="moon"), "no stage 'moon'"),
        (lambda entry: entry.update(policy="../../x"), "no sha256"),
        (lambda entry: entry.update(size=True), "no sha256 with a size"),
        (lambda entry: entry.update(notes=["\x1b[2J"]), "control characters"),
        (lambda entry: entry["criteria"][0].update(measured="1"), "no numbers"),
        (lambda entry: entry["criteria"][0].update(measured=float("nan")), "not finite"),
        (lambda entry: entry.update(criteria={}), "no list"),
        (lambda entry: entry.update(signed="A. Sato"), "no table"),
        (lambda entry: entry.pop("at"), "'at'"),
    ],
)
def test_what_no_entry_is(tmp_path: Path, change: Callable[[Any], None], said: str) -> None:
    from shoal.run.stage_file import _sealed

    entry = json.loads(json.dumps(asdict(ENTRY)))
    change(entry)
    table = {"format": "shoal-stages-1", "sha256": _sealed([entry]), "entries": [entry]}
    (tmp_path / FILE).write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_stages(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    write_stages(tmp_path, Stages((ENTRY,)))
    other = tmp_path / "other"
    other.mkdir()
    (other / FILE).symlink_to(tmp_path / FILE)
    with pytest.raises(ConfigError, match="is a link"):
        read_stages(other)


def test_what_is_no_folder(tmp_path: Path) -> None:
    from shoal.deploy.stages.weights import FOLDER, keep

    (tmp_path / FOLDER).touch()
    with pytest.raises(ConfigError, match="stages is no folder"):
        keep(tmp_path, "a" * 64, b"")


def test_those_who_write_at_once_lose_nothing(tmp_path: Path) -> None:
    def add(number: int) -> None:
        change_stages(tmp_path, lambda found: found.added(replace(ENTRY, source=f"{number}")))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(20)))
    assert sorted(int(one.source) for one in read_stages(tmp_path).entries) == list(range(20))


def test_too_many_entries() -> None:
    with pytest.raises(ConfigError, match="entries already"):
        Stages((ENTRY,) * 1000).added(ENTRY)
