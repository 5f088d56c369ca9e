"""What the guard did, as the run directory holds it: guard.json, and stopped.json where it ended the run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from shoal.run.drafts import write_atomic
from shoal.run.reading import read_json
from shoal.types import ConfigError
from shoal.types.text import shortened

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.run.directory import RunDirectory

FILE, STOPPED = "guard.json", "stopped.json"
MOST = 1000
"""Interventions that are kept, the first; all are counted."""
SAID = 800
"""Characters that are kept of what was found and what followed."""
FILE_BYTES = 4 << 20
"""More than MOST interventions of SAID characters take."""
WHOLE, TEXTS = ("update", "step"), ("learner", "rule", "action", "said")


@dataclass(frozen=True, slots=True)
class Intervention:
    """One time that the guard acted."""

    update: int
    step: int
    learner: str
    rule: str
    action: str
    said: str
    """What was found and what followed, as a sentence."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What guard.json holds."""

    count: int = 0
    interventions: tuple[Intervention, ...] = ()


def write_notes(directory: RunDirectory, notes: Notes) -> None:
    """Replaces guard.json in one step."""
    made = {
        "count": notes.count,
        "interventions": [asdict(x) for x in notes.interventions],
    }
    text = json.dumps(made, indent=1, ensure_ascii=False)
    # Half a pair of surrogates, which UTF-8 has no bytes for, becomes what JSON escapes it as.
    write_atomic(directory.path / FILE, text.encode(errors="backslashreplace"))


def write_stop(directory: RunDirectory, about: dict[str, Any]) -> None:
    """Replaces stopped.json in one step."""
    write_atomic(directory.path / STOPPED, json.dumps(about, indent=1).encode())


def forget_stop(directory: RunDirectory) -> None:
    """Deletes stopped.json: the run goes on."""
    (directory.path / STOPPED).unlink(missing_ok=True)


def forget_notes(directory: RunDirectory) -> None:
    """Deletes guard.json: what it tells of comes after the checkpoint that the run goes on from."""
    (directory.path / FILE).unlink(missing_ok=True)


def read_notes(path: Path) -> Notes:
    """What the guard of the run in folder `path` did; nothing where it never acted. ConfigError: it is damaged."""
    file = path / FILE
    try:
        found = read_json(file, at_most=FILE_BYTES)
        return _checked(found)
    except FileNotFoundError:
        return Notes()
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{file} is damaged; delete it ({error})") from error


def _checked(found: object) -> Notes:
    if not isinstance(found, dict):
        raise ValueError("it is no table")
    table = cast("dict[str, Any]", found)
    count, listed = table.get("count"), table.get("interventions")
    if not isinstance(count, int) or not isinstance(listed, list):
        raise ValueError("it needs a count and a list of interventions")
    return Notes(count, tuple(map(_intervention, cast("list[object]", listed)[:MOST])))


def _intervention(found: object) -> Intervention:
    if not isinstance(found, dict):
        raise ValueError("an intervention is no table")
    table = cast("dict[str, Any]", found)
    for name in (*WHOLE, *TEXTS):
        kind = int if name in WHOLE else str
        if not isinstance(table.get(name), kind):
            raise ValueError(f"an intervention's {name} is missing or of another kind")
    texts = {name: shortened(table[name], SAID) for name in TEXTS}
    return Intervention(table["update"], table["step"], **texts)
