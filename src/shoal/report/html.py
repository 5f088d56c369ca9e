"""The page that each run ends with: curves.png and summary.html, from what the run directory holds and nothing else."""

from __future__ import annotations

import base64
import math
import warnings
from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, cast

from shoal.report.cost.telling import cost_line
from shoal.report.run_table import state_of
from shoal.report.usage import usage
from shoal.run import handed
from shoal.run.drafts import write_atomic
from shoal.run.guard.notes import read_notes
from shoal.run.origin import LANGUAGE
from shoal.run.records import read_metrics
from shoal.types.text import cell, printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from shoal.run.directory import RunDirectory
    from shoal.run.guard.notes import Notes
    from shoal.run.origin import Origin

SUMMARY = "summary.html"
DPI = 110
SHOWN_EVALUATIONS = 20
SHOWN_INTERVENTIONS = 50
SAID = 2000
"""Characters of a sentence that sums them up."""
RESULTS = {
    "state": "state",
    "stop_reason": "stopped by",
    "greedy_return": "mean return of the greedy evaluation",
    "greedy_std": "its standard deviation",
    "greedy_cost": "mean cost of an episode of the greedy evaluation",
    "greedy_cost_std": "its standard deviation",
    "greedy_cost_worst": "cost of its costliest episode",
    "threshold": "threshold",
    "return": "mean return of the last training episodes",
    "steps": "environment steps",
    "updates": "updates",
    "episodes": "episodes",
    "seconds": "training time in seconds",
    "interventions": "times that the guard acted",
    "cost": "cost",
    "began_with": "began with",
}
"""What the keys of run.json are called on the page, in this order; others follow as they are."""
NOT_SHOWN = (
    "env",
    "algo",
    "seed",
    "pid",
    "process_started",
    "versions",
    "reason",
    "usage",
    "paused_at",
    "ended_at",
)
"""Keys of run.json that stand elsewhere on the page, or tell nobody anything."""
POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
)
"""Browsers run and load nothing for the page: its picture and its style stand in it."""
STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
img { max-width: 100%; background: white }
table { border-collapse: collapse } td, th { padding: .1rem 1.2rem .1rem 0; text-align: left; vertical-align: top }
td + td { font-variant-numeric: tabular-nums } th { font-weight: 600 }
pre { padding: .6rem; border: 1px solid #8886; overflow-x: auto }
"""


def write_report(run: RunDirectory) -> Path:
    """Writes curves.png and summary.html into the run directory, each in one step; returns the latter.

    report.html is another file, which somebody may have signed: it stays as it is.

    Raises:
        ConfigError: no run directory, or a damaged one.
    """
    from shoal.report import curves

    config = run.read_shown()
    status = run.read_status()
    metrics = read_metrics(run.metrics)
    if metrics.warning:
        warnings.warn(f"{run.metrics}: {metrics.warning}", stacklevel=2)
    lines = metrics.lines
    named = [printable(config.get(name), 60) for name in ("algo", "env", "seed")]
    title = "{} on {}, seed {}".format(*named)
    picture = curves.png(curves.draw_run(lines, status, title), dpi=DPI)
    write_atomic(run.path / "curves.png", picture)
    status["state"] = state_of(run)
    if cost := cost_line(run):
        status["cost"] = cost
    if metrics.warning:
        status["metrics"] = metrics.warning
    page = html(run, config, status, lines, title=title, picture=picture)
    report = run.path / SUMMARY
    write_atomic(report, page.encode())
    return report


def html(
    run: RunDirectory,
    config: Mapping[str, object],
    status: Mapping[str, object],
    lines: Sequence[Mapping[str, object]],
    *,
    title: str,
    picture: bytes,
) -> str:
    """The page, in one piece: the picture stands in it."""
    parts = [f"<h1>{escape(title)}</h1>"]
    if "reason" in status:
        parts.append(_section("What ended it", _preformatted(str(status["reason"]))))
    parts.append(_section("Result", _table(_results(status))))
    source = base64.b64encode(picture).decode()
    parts.append(f'<img alt="Learning curves" src="data:image/png;base64,{source}">')
    acted = read_notes(run.path)
    if acted.count:
        parts.append(_section("Guard", _interventions(acted)))
    evaluated = [line for line in lines if line.get("eval/return") is not None]
    if evaluated:
        table = _evaluations(evaluated[-SHOWN_EVALUATIONS:])
        parts.append(_section("Evaluations beside training", table))
    if lines:
        parts.append(_section("Last line of metrics.jsonl", _pairs(lines[-1])))
    parts.append(
        _section(
            "Use it",
            _preformatted(
                usage(
                    run.path,
                    config,
                    run.read_origin(),
                    saved=run.is_saved,
                    masked=run.is_masked,
                )
            ),
        )
    )
    settings = applied(flat(config), run.read_origin())
    parts.append(_section("Settings", _pairs(settings)))
    if "versions" in status:
        versions = cast("Mapping[str, object]", status["versions"])
        parts.append(_section("Versions", _pairs(versions)))
    head = f'<meta charset="utf-8">{POLICY}<title>{escape(title)}</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def flat(config: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested tables as one, with dots in its keys."""
    found: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            inside = cast("Mapping[str, object]", value)
            found |= flat(inside, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def applied(config: Mapping[str, object], origin: Origin) -> dict[str, object]:
    """Settings under dotted names, without those of a network and of language models where the run had none.

    A policy of shoal's own, given as an object, follows from the network's settings.
    """
    tables: list[str] = []
    policy = handed.policy(str(config.get("policy") or origin.policy))
    if policy.name and not policy.own:
        tables.append("algorithm.network")
    if origin.unexplained != LANGUAGE and "algorithm.num_generations" not in config:
        tables += ["language", "model"]
    return {
        name: value
        for name, value in config.items()
        if not any(f"{name}.".startswith(f"{table}.") for table in tables)
    }


def shown(value: object) -> str:
    """A value as a person reads it: six digits, thousands apart."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isfinite(value) and abs(value) >= 1e5:
        return f"{value:,.0f}" if value.is_integer() else f"{value:,.1f}"
    return f"{value:.6g}"


def _results(status: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    """What came of a run, as rows of words and figures of four digits."""
    others = [key for key in status if key not in (*RESULTS, *NOT_SHOWN)]
    for key in (*RESULTS, *others):
        value = status.get(key, "")
        if value != "":
            figure = f"{value:,.4g}" if isinstance(value, float) else shown(value)
            yield RESULTS.get(key, key), figure


def _section(name: str, content: str) -> str:
    return f"<h2>{name}</h2>\n{content}"


def _preformatted(text: str) -> str:
    return f"<pre>{escape(printable_lines(text))}</pre>"


def _pairs(values: Mapping[str, object]) -> str:
    return _table(([key, shown(value)] for key, value in values.items()))


def _evaluations(lines: Sequence[Mapping[str, object]]) -> str:
    columns = {
        "step": "step",
        "eval/return": "mean return",
        "eval/std": "standard deviation",
    }
    if any(line.get("eval/cost") is not None for line in lines):
        columns |= {"eval/cost": "mean cost", "eval/cost_worst": "worst cost"}
    rows = [[shown(line.get(name)) for name in columns] for line in lines]
    return _table(rows, heading=columns.values())


def _interventions(notes: Notes) -> str:
    """How often the guard acted, by rule and by what it did, and each of the first times."""
    counts = Counter((x.rule, x.action) for x in notes.interventions)
    pairs = (
        f"{rule}: {action} {count:,} times" for (rule, action), count in counts.items()
    )
    said = f"The guard acted {notes.count:,} times: {'; '.join(pairs)}."
    shown_first = notes.interventions[:SHOWN_INTERVENTIONS]
    names = ("update", "step", "learner", "rule", "action", "said")
    rows = [[shown(getattr(x, name)) for name in names] for x in shown_first]
    heading = (
        "update",
        "step",
        "learner",
        "rule",
        "action",
        "what was found, and what followed",
    )
    return f"<p>{escape(printable(said, SAID))}</p>\n{_table(rows, heading=heading)}"


def _table(rows: Iterable[Iterable[str]], heading: Iterable[str] = ()) -> str:
    lines = [_row(heading, "th")] if heading else []
    lines += [_row(row, "td") for row in rows]
    body = "\n".join(lines)
    return f"<table>\n{body}\n</table>"


def _row(cells: Iterable[str], tag: str) -> str:
    inside = "".join(f"<{tag}>{escape(cell(text))}</{tag}>" for text in cells)
    return f"<tr>{inside}</tr>"
