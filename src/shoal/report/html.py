"""The report of a run: curves.png and report.html, from what the run directory holds and nothing else."""

from __future__ import annotations

import base64
import math
import shlex
from html import escape
from typing import TYPE_CHECKING, Any

from shoal.report.compare import state_of
from shoal.run import log
from shoal.run.directory import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from shoal.run.directory import RunDirectory

DPI = 110
SHOWN_EVALUATIONS = 20
NOT_SHOWN = ("env", "algo", "seed", "pid", "versions", "reason")
"""Keys of run.json that stand elsewhere on the page, or tell nobody anything."""
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
    """Writes curves.png and report.html into the run directory, each in one step; returns the latter.

    Raises:
        ConfigError: no run directory, or a damaged one.
    """
    from shoal.report import curves

    config, status, lines = run.read_config(), run.read_status(), log.read(run.metrics)
    title = f"{config.get('algo')} on {config.get('env')}, seed {config.get('seed')}"
    picture = curves.png(curves.draw_run(lines, status, title), dpi=DPI)
    write_atomic(run.path / "curves.png", picture)
    page = html(
        run,
        config,
        status | {"state": state_of(run)},
        lines,
        title=title,
        picture=picture,
    )
    report = run.path / "report.html"
    write_atomic(report, page.encode())
    return report


def html(
    run: RunDirectory,
    config: Mapping[str, Any],
    status: Mapping[str, Any],
    lines: list[dict[str, Any]],
    *,
    title: str,
    picture: bytes,
) -> str:
    """The page, in one piece: the picture stands in it."""
    results = {key: value for key, value in status.items() if key not in NOT_SHOWN}
    evaluations = [line for line in lines if line.get("eval/return") is not None][
        -SHOWN_EVALUATIONS:
    ]
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(
            [_section("What ended it", f"<pre>{escape(str(status['reason']))}</pre>")]
            if "reason" in status
            else []
        ),
        _section("Result", _pairs(results)),
        f'<img alt="Learning curves" src="data:image/png;base64,{base64.b64encode(picture).decode()}">',
        *(
            [_section("Evaluations beside training", _evaluations(evaluations))]
            if evaluations
            else []
        ),
        *([_section("Last line of metrics", _pairs(lines[-1]))] if lines else []),
        _section("Use it", f"<pre>{escape(_usage(run.path))}</pre>"),
        _section("Settings", _pairs(flat(config))),
        *(
            [_section("Versions", _pairs(status["versions"]))]
            if "versions" in status
            else []
        ),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dots in its keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= (
            flat(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": value}
        )
    return found


def shown(value: Any) -> str:
    """A value as a person reads it: six digits, thousands apart."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return (
        f"{value:,.1f}"
        if math.isfinite(value) and abs(value) >= 1e5
        else f"{value:.6g}"
    )


def _usage(path: Path) -> str:
    where = shlex.quote(str(path))
    commands = [f"shoal eval {where} --video episodes.mp4", f"shoal resume {where}"]
    return "\n".join(
        [
            *commands,
            "",
            f"import shoal\nagent = shoal.load({str(path)!r})\naction = agent.act(obs)",
        ]
    )


def _section(name: str, content: str) -> str:
    return f"<h2>{name}</h2>\n{content}"


def _pairs(values: Mapping[str, Any]) -> str:
    return _table(([key, shown(value)] for key, value in values.items()))


def _evaluations(lines: list[dict[str, Any]]) -> str:
    rows = [
        [shown(line.get(name)) for name in ("step", "eval/return", "eval/std")]
        for line in lines
    ]
    return _table(rows, heading=("step", "mean return", "standard deviation"))


def _table(rows: Iterable[Iterable[str]], heading: Iterable[str] = ()) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    body = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return (
        "<table>\n"
        + "\n".join(f"<tr>{row}</tr>" for row in ([head] if head else []) + body)
        + "\n</table>"
    )
