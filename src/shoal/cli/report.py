"""`shoal report`: one page of a run, or of its seeds, that somebody can sign."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from shoal.cli.arguments import parse
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.run.directory import RunDirectory


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `report`."""

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...")
    ]
    """Run directories that differ in their seed alone, a directory of them, or that of a sweep."""
    run_dir: str = "runs"
    """Directory in which each RUN is searched for as well."""
    language: Literal["en", "ja"] = "en"
    """Language of the report: English or Japanese."""
    pdf: bool = False
    """Also write report.pdf."""
    out: Path | None = None
    """Folder to write into; default: the run's own, or the directory of runs."""
    replace: bool = False
    """Replace a report that is there already, signed or not; without it, it stays and nothing is written."""


def main(arguments: list[str], about: str) -> int:
    """Reports; the exit status."""
    given = parse(Given, arguments, command="report", about=about)
    if not given.runs:
        raise ConfigError("no run to report; give a run directory, or its seeds")
    from shoal.report.signed.signed import choose, write_signed
    from shoal.report.signed.sweep import sweep_of, winners
    from shoal.run.directory import find_all
    from shoal.types.text import printable

    found: list[RunDirectory] = []
    for name in given.runs:
        found += find_all(name, Path(given.run_dir))
    sweep = None
    if len(given.runs) == 1 and len(found) > 1:
        sweep = sweep_of(_place(given))
        found = found if sweep is None else winners(sweep, found)
    runs = choose(found)
    folder = given.out or (_folder(given, runs) if sweep is None else _place(given))
    written = write_signed(
        runs,
        folder,
        language=given.language,
        pdf=given.pdf,
        sweep=sweep,
        replace=given.replace,
    )
    for path in written:
        if path.suffix != ".png":
            print(printable(path))
    return 0


def _folder(given: Given, runs: list[RunDirectory]) -> Path:
    """Where a report lies unless it is said."""
    if len(runs) == 1:
        return runs[0].path
    if len(given.runs) > 1:
        raise ConfigError("a report of several runs needs a place: give --out FOLDER")
    return _place(given)


def _place(given: Given) -> Path:
    """The directory of runs that is named."""
    (name,) = tuple(map(str, given.runs))
    places = (Path(name), Path(given.run_dir) / name)
    return next(base for base in places if base.is_dir())
