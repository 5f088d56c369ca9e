"""Interventions: what a run's guard did, as the run directory tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from shoal.run.reading import read_json
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from shoal.run.directory import RunDirectory

FILE, FILE_BYTES = "guard.json", 4 << 20
MOST = 50
"""Interventions that are shown, the last."""


@dataclass(frozen=True, slots=True)
class Intervention:
    """One time that the guard acted. Texts are printable."""

    update: int
    step: int
    rule: str
    action: str
    said: str


@dataclass(frozen=True, slots=True)
class Interventions:
    """How often the guard acted, and the last times."""

    count: int = 0
    last: tuple[Intervention, ...] = ()


def read_interventions(run: RunDirectory) -> Interventions:
    """What the guard of a run did; nothing where it never acted. ConfigError: the file is damaged."""
    path = run.path / FILE
    try:
        found = read_json(path, at_most=FILE_BYTES)
        return _checked(found)
    except FileNotFoundError:
        return Interventions()
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({printable(error, 200)})") from error


def _checked(found: object) -> Interventions:
    table = _table(found)
    count, listed = table.get("count"), table.get("interventions")
    if not _is_count(count) or not isinstance(listed, list):
        raise ValueError("it needs a count and a list of interventions")
    last = cast("list[object]", listed)[-MOST:]
    return Interventions(cast("int", count), tuple(map(_intervention, last)))


def _intervention(found: object) -> Intervention:
    table = _table(found)
    for name in ("update", "step"):
        if not _is_count(table.get(name)):
            raise ValueError(f"the {name} of an intervention is no count")
    said = [printable(table.get(name, ""), 400) for name in ("rule", "action", "said")]
    return Intervention(table["update"], table["step"], *said)


def _table(found: object) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError("it is no table")
    return cast("dict[str, Any]", found)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
