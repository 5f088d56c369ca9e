"""Files of stages as a stranger or a bad disk could leave them, made from a run that has climbed two of them."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from shoal.run.stage_file import _sealed
from tests.run.hostile import ESCAPE, MARKUP, folder_for, link, pipe, replace_by, six_gib, sparse, whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CASES: dict[str, Callable[[Path], object]] = {}


def case(name: str, make: Callable[[Path], object]) -> None:
    assert name not in CASES
    CASES[name] = make


def restage(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], None]:
    """Changes the entries and seals them again, as whoever knows how could."""

    def make(run: Path) -> None:
        path = run / "stages.json"
        said = json.loads(path.read_text())
        change(said["entries"])
        path.write_text(json.dumps(said | {"sha256": _sealed(said["entries"])}))

    return make


def each_entry(**changed: object) -> Callable[[Path], None]:
    return restage(lambda entries: [entry.update(changed) for entry in entries])


def criterion(**changed: object) -> dict[str, object]:
    return {"name": "a", "measured": 1.0, "bound": 0.0, "least": True} | changed


def signature(text: str) -> dict[str, str]:
    return {"name": text, "at": text, "reason": text}


def forged(run: Path) -> None:
    """A signature by hand, and no seal."""
    path = run / "stages.json"
    said = json.loads(path.read_text())
    said["entries"][-1] |= {"stage": "full", "signed": signature("A. Sato")}
    path.write_text(json.dumps(said))


def deployed(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """The policy is deployed, and the file of its weights is something else."""

    def made(run: Path) -> None:
        each_entry(stage="full", signed=signature("A. Sato"))(run)
        (kept,) = (run / "stages").glob("*.safetensors")
        replace_by(kept, make)

    return made


def of_stages(pattern: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def made(run: Path) -> None:
        (path,) = (run / "stages").glob(pattern)
        replace_by(path, make)

    return made


def said_of(pattern: str, **changed: object) -> Callable[[Path], None]:
    """The tables of a file of JSON lines say something else, where they say it at all."""

    def made(run: Path) -> None:
        (path,) = (run / "stages").glob(pattern)
        tables = [json.loads(line) for line in path.read_text().splitlines()]
        told = [table | {name: value for name, value in changed.items() if name in table} for table in tables]
        path.write_text("".join(json.dumps(table) + "\n" for table in told))

    return made


def stages_elsewhere(run: Path) -> None:
    other = run.parent.parent / f"{run.name}-elsewhere"
    shutil.move(run / "stages", other)
    (other / ".hidden.file").write_text("mine")
    (run / "stages").symlink_to(other)


case("stages-pipe", pipe("stages.json"))
case("stages-link", link("stages.json", "/etc/passwd"))
case("stages-folder", folder_for("stages.json"))
case("stages-large", sparse("stages.json", 6 << 30))
case("stages-half", whole("stages.json", b'{"format": "shoal-sta'))
case("stages-deep", whole("stages.json", b'{"entries":' + b"[" * 100_000))
case("stages-wide", restage(lambda entries: entries.extend([{"notes": ["x"] * 1000}] * 900)))
case("stages-many", each_entry(criteria=[criterion()] * 200, notes=["x" * 1000] * 200))
case("stages-too-many", restage(lambda entries: entries.extend([dict(entries[0])] * 2000)))
case("stages-types", each_entry(stage=["full"], at=3, policy={}, signed=[1]))
case("stages-texts", each_entry(criteria="abc", notes={"a": 1}))
case("stages-numbers", each_entry(criteria=[criterion(measured=10**400)]))
case("stages-huge", each_entry(criteria=[criterion(measured=1e308, bound=-1e308)], size=2**62))
case("stages-nan", each_entry(criteria=[criterion(measured=float("nan"))]))
case("stages-markup", each_entry(source=MARKUP, notes=[MARKUP, f"ALARM: {MARKUP}"], signed=signature(MARKUP)))
case("stages-withdrawn", each_entry(source=MARKUP, withdrawn=signature(MARKUP)))
case("stages-escapes", each_entry(signed=signature(ESCAPE)))
case("stages-bidi", each_entry(signed=signature("\u202eotaS .A")))
case("stages-forged", forged)
case("stages-other-policy", each_entry(stage="full", policy="f" * 64, size=2**62, signed=signature("A. Sato")))
case("stages-elsewhere", stages_elsewhere)
case("deployed-pipe", deployed(os.mkfifo))
case("deployed-link", deployed(lambda path: path.symlink_to("/etc/passwd")))
case("deployed-sparse", deployed(six_gib))
case("deployed-other", deployed(lambda path: path.write_bytes(b"\xff" * 5000)))
case("reference-pipe", of_stages("*.reference.json", os.mkfifo))
case("reference-link", of_stages("*.reference.json", lambda path: path.symlink_to("/etc/passwd")))
case("reference-sparse", of_stages("*.reference.json", six_gib))
case("reference-deep", of_stages("*.reference.json", lambda path: path.write_bytes(b"[" * 100_000)))
case("reference-types", said_of("*.reference.json", names=3, mean="x"))
case("reference-numbers", said_of("*.reference.json", mean=[10**400] * 4))
case("reference-huge", said_of("*.reference.json", mean=[1e308] * 4, std=[0.0] * 4))
case("reference-markup", said_of("*.reference.json", names=[MARKUP, *"abc"], source=MARKUP))
case("log-pipe", of_stages("shadow-0.jsonl", os.mkfifo))
case("log-sparse", of_stages("shadow-0.jsonl", six_gib))
case("log-one-line", sparse("stages/shadow-0.jsonl", 60 << 20))
case("log-deep", of_stages("shadow-0.jsonl", lambda path: path.write_bytes(b"[" * 100_000 + b"\n")))
case("log-types", said_of("shadow-0.jsonl", kind=3, steps="many"))
case("log-counts", said_of("shadow-0.jsonl", steps=10**400, agreed=10**399, episode=2**70))
case("log-numbers", said_of("shadow-0.jsonl", total=1e308, distance=1e308))
case("log-integers", said_of("shadow-0.jsonl", total=10**400))
case("log-markup", said_of("shadow-0.jsonl", env=MARKUP, spec=MARKUP, at=ESCAPE))
case("log-seen", said_of("shadow-0.jsonl", seen={"count": 10**400, "mean": [1e308] * 4, "m2": [1e308] * 4, "bins": 3}))
case(
    "log-bins",
    said_of(
        "shadow-0.jsonl",
        seen={"count": 10**400, "mean": [1e308] * 4, "m2": [-1e308] * 4, "bins": [[2**62] * 10] * 4},
    ),
)
case("stages-is-a-pipe", lambda run: replace_by(run / "stages", os.mkfifo))
