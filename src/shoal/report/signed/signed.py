"""Writing the report of runs: report.html, report.pdf and curves.png, from run directories and nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shoal.report.groups import family
from shoal.report.signed import sections
from shoal.report.signed.content import Heading, Picture, Plain
from shoal.report.signed.gather import gather
from shoal.report.signed.picture import draw, draw_all
from shoal.report.signed.sweep import sweep_section
from shoal.report.signed.to_html import to_html
from shoal.report.signed.to_pdf import to_pdf
from shoal.report.signed.words import Words
from shoal.report.usage import usage
from shoal.run.directory import versions
from shoal.run.drafts import write_atomic
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shoal.report.signed.content import Block
    from shoal.report.signed.gather import Told
    from shoal.report.signed.sweep import Sweep
    from shoal.report.signed.words import Language
    from shoal.run.directory import RunDirectory

HTML, PDF = "report.html", "report.pdf"


def write_signed(
    runs: Sequence[RunDirectory],
    folder: Path,
    *,
    language: Language = "en",
    pdf: bool = True,
    sweep: Sweep | None = None,
    replace: bool = False,
) -> list[Path]:
    """Writes the report of runs that differ in their seed alone; what was written, report.html first.

    Args:
        runs: at least one.
        folder: of the files: the run's own, or another.
        language: en or ja.
        pdf: whether report.pdf is written too.
        sweep: what they won.
        replace: whether a report that is there already is lost.

    Raises:
        ConfigError: a report is there already, a damaged run, runs of different configurations, or a PDF's packages
            are not installed.
    """
    _check_free(folder, pdf=pdf, replace=replace)
    words = Words(language)
    told = gather(runs)
    title, about = _title(told, words), _about(words)
    picture = draw(told, words, title)
    blocks = blocks_of(told, picture, words, sweep)
    everything = picture
    if len(told) == 1:
        everything = draw_all(told[0], words, title)
        blocks += [Heading(words("all_curves")), Picture(everything, title)]
    written = {HTML: to_html(title, about, blocks, words).encode()}
    if pdf:
        written[PDF] = to_pdf(title, about, blocks, words)
    written["curves.png"] = everything
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in written.items():
        write_atomic(folder / name, data)
    return [folder / name for name in written]


def _check_free(folder: Path, *, pdf: bool, replace: bool) -> None:
    """ConfigError where a report is there already: nobody but its reader knows whether it is signed."""
    for path in (folder / name for name in ((HTML, PDF) if pdf else (HTML,))):
        if not replace and (path.exists() or path.is_symlink()):
            raise ConfigError(
                f"{path} is there already, and somebody may have signed it: write the new report elsewhere "
                "(--out FOLDER), or replace that one (--replace)"
            )


def choose(runs: Sequence[RunDirectory]) -> list[RunDirectory]:
    """Of runs with one configuration and seed the newest; `runs` has the oldest first.

    Runs of other configurations stay, so that `gather` refuses them instead of leaving them out in silence.
    """
    newest: dict[object, RunDirectory] = {}
    for run in runs:
        config = run.read_shown()
        newest[family(config), config.get("seed")] = run
    return list(newest.values())


def blocks_of(
    told: Sequence[Told], picture: bytes, words: Words, sweep: Sweep | None = None
) -> list[Block]:
    """All sections, those for whoever signs first."""
    return [
        *sections.summary(told, words),
        *sections.task(told, words),
        *sections.results(told, words),
        *sections.curves(picture, told, words),
        *sections.not_tested(told, words),
        *([] if sweep is None else sweep_section(sweep, words)),
        *sections.doctor(told, words),
        *sections.guard(told, words),
        *sections.cost(told, words),
        *sections.stages(told, words),
        *sections.explanation(told, words),
        *sections.videos(told, words),
        *sections.signatures(words),
        Heading(words("use")),
        Plain(
            usage(
                told[0].run.path,
                told[0].saved,
                told[0].origin,
                saved=told[0].run.is_saved,
                masked=told[0].run.is_masked,
            )
        ),
        *sections.settings(told, words),
    ]


def _title(told: Sequence[Told], words: Words) -> str:
    config = told[0].config
    named = {name: printable(config.get(name), 60) for name in ("algo", "env")}
    seeds = ", ".join(one.seed for one in told)
    which = words("seed" if len(told) == 1 else "seeds", count=len(told), seeds=seeds)
    return f"{words('title', **named)} - {which}"


def _about(words: Words) -> str:
    date = time.strftime("%Y-%m-%d %H:%M")
    return words("made", date=date, version=versions()["shoal"])
