"""A sweep in a report: which of its runs stand for it, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from shoal.report.groups import family
from shoal.report.html import flat, shown
from shoal.report.signed.content import Heading, Table, Text
from shoal.run.reading import MANIFEST_BYTES, read_json
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from shoal.report.signed.content import Block
    from shoal.report.signed.words import Words
    from shoal.run.directory import RunDirectory

SUMMARY, JOURNAL = "summary.json", "study.journal"


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep's summary says."""

    best: Mapping[str, Any]
    """The winner's settings by dotted names."""
    verdict: str
    trials: int
    seconds: float
    importance: Mapping[str, Any] = field(default_factory=dict[str, Any])


def sweep_of(folder: Path) -> Sweep | None:
    """The sweep in a folder; None where there is none.

    Raises:
        ConfigError: it has no summary yet, or a damaged one.
    """
    path = folder / SUMMARY
    try:
        found: Any = read_json(path, at_most=MANIFEST_BYTES)
        best, importance = dict(found["best"]), dict(found["importance"])
        seconds, trials = float(found["cost_s"]), len(found["trials"])
        return Sweep(best, str(found["verdict"]), trials, seconds, importance)
    except FileNotFoundError:
        if not (folder / JOURNAL).exists():
            return None
        raise ConfigError(
            f"the sweep {printable(folder)} has no result yet, as it was not gone through to its end: `shoal sweep "
            f"{printable(folder)} --show` says where it is, and without --show it goes on; or report a run of it"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged ({type(error).__name__}: {error})"
        ) from error


def winners(sweep: Sweep, runs: Sequence[RunDirectory]) -> list[RunDirectory]:
    """The runs of the winner's settings, of which most differ in their seed alone.

    Raises:
        ConfigError: there are none.
    """
    families: dict[str, list[RunDirectory]] = {}
    for run in runs:
        config = run.read_config()
        if _has(flat(config), sweep.best):
            families.setdefault(family(config), []).append(run)
    if not sweep.best or not families:
        raise ConfigError(
            "no run of this sweep has the winner's settings: the sweep has no winner yet, or its runs are gone; "
            "report a run of it"
        )
    return max(families.values(), key=len)


def _has(config: Mapping[str, object], best: Mapping[str, Any]) -> bool:
    for name, value in best.items():
        found = config.get(f"algorithm.{name}", config.get(name))
        if str(_plain(found)) != str(_plain(value)):
            return False
    return True


def _plain(value: object) -> object:
    """Whole floats as integers, so that 1 and 1.0 are the same; lists of tuples."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return (
        list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value
    )


def sweep_section(sweep: Sweep, words: Words) -> list[Block]:
    """How many trials, at what cost, what won and what mattered."""
    parts = {"trials": sweep.trials, "seconds": f"{sweep.seconds:,.0f}"}
    rows: list[list[str]] = []
    for name, value in sweep.best.items():
        share = sweep.importance.get(name)
        said = f"{share:.2f}" if isinstance(share, float) else "-"
        rows.append([name, shown(value), said])
    titles = [words(name) for name in ("setting", "value", "mattered")]
    return [
        Heading(words("sweep")),
        Text(words("sweep_said", **parts)),
        Text(words.said(sweep.verdict)),
        Table(rows, titles),
    ]
