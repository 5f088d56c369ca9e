"""Pictures of a sweep: return against seconds, and which settings mattered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.experiment.sweep.results import complete, front_of
from shoal.report.curves import blank, plain_style, png
from shoal.run.drafts import write_atomic
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shoal.experiment.sweep.results import Row

PARETO, IMPORTANCE = "pareto.png", "importance.png"
DPI = 120


def write_pictures(
    folder: Path,
    title: str,
    rows: Sequence[Row],
    importance: Mapping[str, float],
    chosen: int | None,
) -> list[Path]:
    """Writes the pictures that there is something to show in.

    Args:
        folder: the sweep's directory.
        title: what it is of.
        rows: its trials.
        importance: of settings, shares of 1.
        chosen: the winner's number.
    """
    found: list[Path] = []
    if complete(rows):
        found.append(folder / PARETO)
        write_atomic(found[-1], png(draw_pareto(title, rows, chosen), dpi=DPI))
    if importance:
        found.append(folder / IMPORTANCE)
        write_atomic(found[-1], png(draw_importance(title, importance), dpi=DPI))
    return found


@plain_style()
def draw_pareto(title: str, rows: Sequence[Row], chosen: int | None) -> Figure:
    """Every trial that came to its end as a point, and a line through those that none beats."""
    figure = blank(7.0, 4.5)
    axes: Axes = figure.subplots()
    done, front = complete(rows), front_of(rows)
    axes.scatter(*_points(done), color="tab:gray", alpha=0.6, label="trials")
    axes.step(
        *_points(front),
        where="post",
        color="tab:blue",
        marker="o",
        label="Pareto front",
    )
    own = [row for row in done if row.number == chosen]
    if own:
        axes.scatter(*_points(own), color="tab:red", zorder=3, label="winner")
    axes.set(xlabel="seconds of training", ylabel="return", title=printable(title))
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def _points(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    returns = [row.returned for row in rows if row.returned is not None]
    return [row.seconds for row in rows], returns


@plain_style()
def draw_importance(title: str, importance: Mapping[str, float]) -> Figure:
    """A bar for each setting, the largest on top."""
    figure = blank(7.0, 1.2 + 0.35 * len(importance))
    axes: Axes = figure.subplots()
    names = [printable(name) for name in importance]
    axes.barh(names, list(importance.values()), color="tab:blue")
    axes.invert_yaxis()
    axes.set(xlabel="importance (PED-ANOVA, shares of 1)", title=printable(title))
    axes.grid(axis="x", alpha=0.3)
    return figure
