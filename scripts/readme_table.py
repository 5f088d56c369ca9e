"""Writes the tables of measured figures into README.md and docs/benchmarks.md from benchmarks/results/*.json.

A results file holds one run of one benchmark:

    {"name": "stepping", "date": "2026-11-20", "machine": {"cpu": "...", "cores": 2}, "versions": {"shoal": "0.1.0"},
     "rows": [{"claim": "CartPole-v1, 4,096 rows", "ours": 1.0e7, "theirs": 5.0e6, "ratio": 2.0, "bar": 1.1,
               "unit": "steps/s", "note": "PufferLib 3.0, 2 threads"}]}

All figures may be null; `bar` is the least ratio that keeps the claim. The README shows the headlines, docs/ all.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START, END = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"
PAGES = (Path("README.md"), Path("docs/benchmarks.md"))
RESULTS = Path("benchmarks/results")
HEADER = ("| what | shoal | beside | ratio | bar | note |", "|---|---:|---:|---:|---:|---|")


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


def is_headline(row: Row) -> bool:
    """Whether the README shows it: a claim with a bar, or seconds of training."""
    return row.bar is not None or row.unit == "s"


def render(result: Result, *, headlines: bool) -> list[str]:
    """The caption and the table of one results file, as Markdown lines; nothing where no row is to be shown."""
    rows = [row for row in result.rows if is_headline(row) or not headlines]
    if not rows:
        return []
    machine = ", ".join(f"{key} {value}" for key, value in result.machine.items())
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [f"**{result.name}** · {result.date} · {machine} · {versions}", "", *HEADER]
    for row in rows:
        ratio = "–" if row.ratio is None else f"{row.ratio:.2f} ×"
        bar = "–" if row.bar is None else f"≥ {row.bar:g} ×"
        ours, theirs = format_figure(row.ours, row.unit), format_figure(row.theirs, row.unit)
        lines.append(f"| {row.claim} | {ours} | {theirs} | {ratio} | {bar} | {row.note} |")
    return [*lines, ""]


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
    stale: list[str] = []
    for page in PAGES:
        lines = [line for result in results for line in render(result, headlines=page.name == "README.md")]
        tables = "\n".join(["", *lines]) + "\n" if lines else ""
        text = page.read_text(encoding="utf-8")
        updated = replace_tables(text, tables)
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
