"""Gathering: what a report needs to know of runs, read once from their directories."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from shoal.report.doctor.doctor import examine
from shoal.report.doctor.evidence import Evidence
from shoal.report.explain.writing import FOLDER
from shoal.report.groups import differences, family, names_of, read_curve
from shoal.report.html import flat
from shoal.report.run_table import state_of
from shoal.run.guard.notes import Notes, read_notes
from shoal.run.reading import DamagedError, read_bytes, read_json, sentence
from shoal.run.records import read_metrics
from shoal.run.stage_file import read_stages
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from shoal.report.doctor.finding import Finding
    from shoal.report.groups import Curve
    from shoal.run.directory import RunDirectory
    from shoal.run.origin import Origin
    from shoal.run.stage_file import Stages

JSON_BYTES, PICTURE_BYTES = 4 << 20, 8 << 20
VIDEO_BYTES, MOST_VIDEOS = 12 << 20, 4
"""What a video may take in a page, and how many stand in it."""
LONGEST, MOST_LINES = 300, 12
"""Of the settings in which runs differ: characters of each, and how many are said."""
SUFFIXES = (".mp4", ".gif")


@dataclass(frozen=True)
class Told:
    """What one run's directory tells."""

    run: RunDirectory
    config: Mapping[str, Any]
    """Nested tables under dotted names."""
    saved: Mapping[str, Any]
    """Nested, as config.toml has them."""
    origin: Origin
    """Which run it is, and what objects it was given."""
    status: Mapping[str, Any]
    state: str
    lines: Sequence[Mapping[str, Any]]
    damage: str
    guard: Notes
    findings: Sequence[Finding]
    explanation: Mapping[str, Any] = field(default_factory=dict[str, Any])
    pictures: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Of the explanation, by file name."""
    stages: Stages | None = None
    """How far its policies came towards the real system; None where stages.json is damaged."""
    stages_damage: str = ""
    videos: Sequence[tuple[str, bytes | None]] = ()

    @property
    def seed(self) -> str:
        """As text."""
        return str(self.config.get("seed", "?"))

    def number(self, name: str) -> float | None:
        """A number of run.json."""
        value = self.status.get(name)
        return float(value) if isinstance(value, int | float) else None

    def curve(self) -> Curve | None:
        """Its mean return over its steps; None where no episode ended."""
        try:
            return read_curve(self.run)
        except ConfigError:
            return None


def gather(runs: Sequence[RunDirectory]) -> list[Told]:
    """What runs of one configuration tell, in the order of their seeds.

    Raises:
        ConfigError: a damaged run, or runs of different configurations.
    """
    told = [read(run) for run in runs]
    _check_one_family(told)
    return sorted(told, key=_order)


def _order(told: Told) -> tuple[int, str]:
    seed = told.config.get("seed")
    return (seed if isinstance(seed, int) else -1), str(told.run.path)


def read(run: RunDirectory) -> Told:
    """What a run's directory tells; ConfigError where it is damaged."""
    saved = run.read_shown()
    metrics = read_metrics(run.metrics)
    folder = run.path / FOLDER
    linked = folder.is_symlink()
    explanation = {} if linked else _table(folder / "explanation.json")
    pictures: dict[str, bytes] = {}
    for name in ("importance.png", "saliency.png", "critic.png"):
        data = _bytes(folder / name, PICTURE_BYTES) if explanation else None
        if data is not None and data.startswith(b"\x89PNG"):
            pictures[name] = data
    stages, damage = _stages(run.path)
    return Told(
        run,
        flat(saved),
        saved,
        run.read_origin(),
        run.read_status(),
        state_of(run),
        metrics.lines,
        metrics.warning,
        read_notes(run.path),
        examine(Evidence.of(run)),
        explanation,
        pictures,
        stages,
        damage,
        _videos(run.path),
    )


def _stages(folder: Path) -> tuple[Stages | None, str]:
    """The stages, or why there are none that could be believed."""
    try:
        return read_stages(folder), ""
    except ConfigError as error:
        return None, sentence(error)


def _check_one_family(told: Sequence[Told]) -> None:
    """ConfigError where runs differ in more than their seeds, with the settings and their values."""
    first = told[0]
    others = [one for one in told if family(one.saved) != family(first.saved)]
    if not others:
        return
    names = names_of([one.run for one in told])
    lines = differences(dict(zip(names, (one.saved for one in told), strict=True)))
    said = "; ".join(printable(line, LONGEST) for line in lines[:MOST_LINES])
    more = f"; and {len(lines) - MOST_LINES} more" if len(lines) > MOST_LINES else ""
    advice = "report each, or see `shoal compare`"
    if all(line.startswith("total_timesteps:") for line in lines):
        advice = (
            "bring them to one length by `shoal resume RUN --total-timesteps N`, or "
            + advice
        )
    raise ConfigError(
        f"a report is of one configuration, and these runs differ in more than their seed: {said}{more}; {advice}"
    )


def _table(path: Path) -> dict[str, Any]:
    """A JSON table; empty where there is none, or it is no table, a link or too large."""
    try:
        found = read_json(path, at_most=JSON_BYTES)
    except (FileNotFoundError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _bytes(path: Path, at_most: int) -> bytes | None:
    """A file; None where there is none, or it is a link or too large."""
    try:
        return read_bytes(path, at_most=at_most)
    except (FileNotFoundError, DamagedError):
        return None


def _videos(folder: Path) -> list[tuple[str, bytes | None]]:
    """The videos that lie in a folder, those that are small with their bytes."""
    files = [path for path in folder.iterdir() if path.suffix in SUFFIXES]
    kept = [
        path
        for path in sorted(files)
        if path.is_file() and not path.is_symlink() and path.name.isprintable()
    ]
    return [(path.name, _bytes(path, VIDEO_BYTES)) for path in kept[:MOST_VIDEOS]]
