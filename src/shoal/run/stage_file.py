"""Stages: `stages.json` of a run directory, which says how far a policy has come towards the real system, and by whom.

Whoever writes an entry adds it behind the others; what was measured and signed is never changed, only withdrawn.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from shoal.run.drafts import write_atomic
from shoal.run.reading import INT64, DamagedError, read_json, sentence
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

STAGES = ("simulate", "replay", "shadow", "canary", "full")
"""In their order."""
FILE, FORMAT = "stages.json", "shoal-stages-1"
BYTES = 4 << 20
HUGE = 1e300
"""Beyond it nothing is measured."""
MOST_ENTRIES = 1000
MOST_PARTS = 200
"""Criteria of an entry, and its notes."""
NAME, TEXT = 100, 1000
"""Characters of a name, and of a reason, a note or a source."""
HASH = 64
"""Letters of a sha256."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """A number that must hold."""

    name: str
    measured: float
    bound: float
    least: bool = True
    """Whether it must be at least `bound`; else it may be that at most."""

    @property
    def holds(self) -> bool:
        """Whether it does."""
        if self.least:
            return self.measured >= self.bound
        return self.measured <= self.bound

    def __str__(self) -> str:
        """In a line."""
        which = "at least" if self.least else "at most"
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        name = self.name.replace("_", " ")
        return (
            f"{name}: {self.measured:.4g}, must be {which} {self.bound:.4g}: {verdict}"
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """Who says so, and when."""

    name: str
    at: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A policy that entered a stage, and what was measured."""

    stage: str
    at: str
    policy: str
    """The sha256 of its weights' file."""
    size: int
    """The bytes of that file."""
    source: str = ""
    """What it was measured by; empty where it was not measured yet."""
    data: str = ""
    """The sha256 of that data; empty where there is no file."""
    criteria: tuple[Criterion, ...] = ()
    notes: tuple[str, ...] = ()
    signed: Signature | None = None
    withdrawn: Signature | None = None

    @property
    def measured(self) -> bool:
        """Whether it was; the last stage has nothing to measure."""
        return bool(self.criteria) or self.stage == STAGES[-1]

    @property
    def holds(self) -> bool:
        """Whether it was measured, and all of its criteria hold."""
        return self.measured and all(one.holds for one in self.criteria)

    @property
    def number(self) -> int:
        """Of its stage."""
        return STAGES.index(self.stage)


@dataclass(frozen=True, slots=True)
class Stages:
    """All entries, oldest first."""

    entries: tuple[Entry, ...] = field(default_factory=tuple)

    def standing(self, policy: str | None = None) -> list[Entry]:
        """Those that count, of one policy or of the one that entered last: one a stage, in order.

        Whoever enters a stage again begins there anew: what came later no longer counts.
        """
        if policy is None:
            left = [one for one in self.entries if one.withdrawn is None]
            policy = left[-1].policy if left else ""
        found: dict[int, Entry] = {}
        for entry in self.entries:
            if entry.policy == policy and entry.withdrawn is None:
                found = {n: one for n, one in found.items() if n < entry.number}
                found[entry.number] = entry
        return [found[number] for number in sorted(found)]

    @property
    def deployed(self) -> Entry | None:
        """The newest entry of the last stage that is signed and was not withdrawn; None: no policy is deployed."""
        full = [
            one
            for one in self.entries
            if one.stage == STAGES[-1] and one.signed and one.withdrawn is None
        ]
        return full[-1] if full else None

    def added(self, entry: Entry) -> Stages:
        """With one more; ConfigError where there are too many."""
        if len(self.entries) >= MOST_ENTRIES:
            raise ConfigError(
                f"{FILE} has {MOST_ENTRIES} entries already; move it away and begin anew"
            )
        return Stages((*self.entries, entry))

    def replaced(self, old: Entry, **changes: Any) -> Stages:
        """With an entry signed or withdrawn."""
        changed = [
            replace(one, **changes) if one is old else one for one in self.entries
        ]
        return Stages(tuple(changed))


def now() -> str:
    """The time, as text."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_stages(folder: Path) -> Stages:
    """The stages of a run directory; none where there is no file.

    Raises:
        ConfigError: the file is damaged, was changed by hand, is a link, or is too large.
    """
    path = folder / FILE
    try:
        return _read(read_json(path, at_most=BYTES))
    except FileNotFoundError:
        return Stages()
    except DamagedError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged or was changed by hand ({sentence(error)}): no signature in it counts; restore it from "
            "a copy, or move it away and begin anew"
        ) from error


def change_stages(folder: Path, change: Callable[[Stages], Stages]) -> Stages:
    """Reads, changes and writes; of several who do so at once each sees what the other wrote."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        made = change(read_stages(folder))
        write_stages(folder, made)
    finally:
        os.close(handle)
    return made


def write_stages(folder: Path, stages: Stages) -> None:
    """Replaces the file in one step."""
    entries = [asdict(entry) for entry in stages.entries]
    said = {"format": FORMAT, "sha256": _sealed(entries), "entries": entries}
    text = json.dumps(said, indent=1, allow_nan=False)
    write_atomic(folder / FILE, text.encode())


def _sealed(entries: object) -> str:
    """By which damage shows; it is no protection from whoever computes it anew."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _read(said: object) -> Stages:
    table = _table(said)
    if table.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    entries: Any = table["entries"]
    if not isinstance(entries, list) or len(cast("list[Any]", entries)) > MOST_ENTRIES:
        raise ValueError("it has no list of entries, or too long a one")
    if table.get("sha256") != _sealed(entries):
        raise ValueError("its sha256 differs")
    return Stages(tuple(_entry(_table(one)) for one in cast("list[object]", entries)))


def _entry(said: Mapping[str, Any]) -> Entry:
    if said["stage"] not in STAGES:
        raise ValueError(f"there is no stage {str(said['stage'])[:40]!r}")
    policy, size = said["policy"], said["size"]
    if not is_hash(policy) or type(size) is not int or not 0 <= size < INT64:
        raise ValueError("a policy is no sha256 with a size")
    data = said["data"]
    if data and not is_hash(data):
        raise ValueError("data are no sha256")
    return Entry(
        said["stage"],
        _text(said["at"], NAME),
        policy,
        size,
        _text(said["source"], TEXT),
        data,
        tuple(_criterion(_table(one)) for one in _list(said["criteria"])),
        tuple(_text(one, TEXT) for one in _list(said["notes"])),
        _signature(said["signed"]),
        _signature(said["withdrawn"]),
    )


def _criterion(said: Mapping[str, Any]) -> Criterion:
    numbers = said["measured"], said["bound"]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError("a criterion has no numbers")
        if not abs(number) <= HUGE:  # NaN is not, either
            raise ValueError("a criterion is not finite")
    if not isinstance(said["least"], bool):
        raise ValueError("a criterion has no direction")
    return Criterion(_text(said["name"], NAME), *numbers, said["least"])


def _signature(said: object) -> Signature | None:
    if said is None:
        return None
    table = _table(said)
    name, at, reason = table["name"], table["at"], table["reason"]
    return Signature(_text(name, NAME), _text(at, NAME), _text(reason, TEXT))


def is_hash(value: object) -> bool:
    """Whether it is a sha256 as text."""
    return (
        isinstance(value, str)
        and len(value) == HASH
        and set(value) <= set("0123456789abcdef")
    )


def _table(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it holds what is no table")
    return cast("dict[str, Any]", value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list) or len(cast("list[Any]", value)) > MOST_PARTS:
        raise ValueError("it holds what is no list, or too long a one")
    return cast("list[object]", value)


def _text(value: object, most: int) -> str:
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise ValueError("a text is none, too long, or holds control characters")
    return value
