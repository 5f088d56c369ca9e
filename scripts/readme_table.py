"""Writes the tables of measured figures into README.md and docs/benchmarks.md from benchmarks/results/*.json.

A results file holds one run of one benchmark:

    {"name": "stepping", "date": "2026-11-20", "machine": {"cpu": "...", "cores": 2}, "versions": {"shoal": "0.1.0"},
     "rows": [{"claim": "CartPole-v1, 4,096 rows", "ours": 1.0e7, "theirs": 5.0e6, "ratio": 2.0, "bar": 1.1,
               "unit": "steps/s", "note": "PufferLib 3.0, 2 threads"}]}

All figures may be null; `bar` is the least ratio that keeps the claim. The README shows the rows that
benchmarks/headlines.toml names and which claims miss their bar, docs/ every row. A ratio that is shown is above 1
where shoal is better, of seconds too.
"""

import argparse
import json
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START, END = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"
README, PAGE = Path("README.md"), Path("docs/benchmarks.md")
RESULTS = Path("benchmarks/results")
HEADLINES = Path("benchmarks/headlines.toml")
HEADER = ("| what | shoal | beside | ratio | bar | note |", "|---|---:|---:|---:|---:|---|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """A row that the README shows: where it stands, and in which words."""

    result: str
    claim: str
    note: str
    """What stands in the note of this row and of no other with the same claim."""
    says: str
    beside: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim as it was measured."""

    claim: str
    ours: float | None
    theirs: float | None
    ratio: float | None
    bar: float | None
    unit: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run of one benchmark on one machine."""

    name: str
    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    rows: list[Row]


def read_result(path: Path) -> Result:
    """A results file, checked; ValueError names the file and what is wrong in it."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**row) for row in fields.pop("rows")]
        return Result(**fields, rows=rows)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def format_figure(value: float | None, unit: str) -> str:
    """A figure to three significant digits or to whole units, thousands apart, with its unit."""
    if value is None:
        return "–"
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:,.3g} M {unit}".rstrip()
    return (f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}").rstrip()


def ratio_of(row: Row) -> float | None:
    """How many times better shoal is: more steps a second, or fewer seconds."""
    if row.ratio is None or row.unit not in ("s", "seconds"):
        return row.ratio
    return 1 / row.ratio


def format_ratio(ratio: float | None) -> str:
    """A ratio with two decimals."""
    return "–" if ratio is None else f"{ratio:.2f} ×"


def render(result: Result) -> list[str]:
    """The caption and the table of one results file, as Markdown lines."""
    machine = ", ".join(f"{key} {value}" for key, value in result.machine.items())
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [f"**{result.name}** · {result.date} · {machine} · {versions}", "", *HEADER]
    for row in result.rows:
        bar = "–" if row.bar is None else f"≥ {row.bar:g} ×"
        ours, theirs = format_figure(row.ours, row.unit), format_figure(row.theirs, row.unit)
        lines.append(f"| {row.claim} | {ours} | {theirs} | {format_ratio(ratio_of(row))} | {bar} | {row.note} |")
    return [*lines, ""]


def find_headline(results: list[Result], headline: Headline) -> tuple[Result, Row]:
    """The row that a headline names; ValueError where the results hold none, or several."""
    named = [result for result in results if result.name == headline.result]
    found = [
        (result, row)
        for result in named
        for row in result.rows
        if row.claim == headline.claim and headline.note in row.note
    ]
    if len(found) != 1:
        raise ValueError(f"{RESULTS}: {len(found)} rows, not one, for the README's {headline}")
    return found[0]


def render_headlines(results: list[Result]) -> list[str]:
    """The README's table, its date and machine, and the claims of all results that miss their bar."""
    named = tomllib.loads(HEADLINES.read_text(encoding="utf-8"))["headlines"]
    headlines = [Headline(**fields) for fields in named]
    found = [(headline, *find_headline(results, headline)) for headline in headlines]
    lines = ["| | shoal | beside | ratio |", "|---|---:|---:|---:|"]
    for headline, _, row in found:
        ours, theirs = format_figure(row.ours, row.unit), format_figure(row.theirs, row.unit)
        suspect = " (suspect)" if "suspect" in row.note else ""
        ratio = format_ratio(ratio_of(row))
        lines.append(f"| {headline.says} | {ours} | {headline.beside}: {theirs}{suspect} | {ratio} |")
    where = {f"{result.date}, {result.machine['cpu']}, {result.machine['cores']} cores" for _, result, _ in found}
    lines += ["", f"Measured {'; '.join(sorted(where))}.", ""]
    rows = [row for result in results for row in result.rows]
    missed = [
        f"{row.claim}: {format_ratio(row.ratio)}, bar {row.bar:g} ×"
        for row in rows
        if row.ratio is not None and row.bar is not None and row.ratio < row.bar
    ]
    said = f"Claims that miss the bar set for them: {'; '.join(missed)}." if missed else "No claim misses its bar."
    return [*lines, said, ""]


def replace_tables(text: str, tables: str) -> str:
    """The page with the part between the two marks replaced; a page without marks stays as it is."""
    if START not in text or END not in text:
        return text
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    return before + START + "\n" + tables + END + after


def main() -> int:
    """Writes or checks every page; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if a page is out of date")
    arguments = parser.parse_args()
    results = [read_result(path) for path in sorted(RESULTS.glob("*.json"))]
    tables = {README: render_headlines(results), PAGE: [line for result in results for line in render(result)]}
    stale: list[str] = []
    for page, lines in tables.items():
        text = page.read_text(encoding="utf-8")
        updated = replace_tables(text, "\n".join(["", *lines]) + "\n")
        if updated != text:
            stale.append(str(page))
            if not arguments.check:
                page.write_text(updated, encoding="utf-8")
    if arguments.check and stale:
        print(", ".join(stale) + ": not the figures of benchmarks/results; run `make format` and commit.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
