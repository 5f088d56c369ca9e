"""Curves: what a run's metrics look like over environment steps, as a figure and as a PNG."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from shoal.types import Floats

COLUMNS = 3
WIDTH, MAIN_HEIGHT, SMALL_HEIGHT = 10.0, 3.6, 1.9
"""Inches: of the figure, of the return's axes, and of each row of small ones."""
SMALL = ("loss/", "train/", "info/", "speed/")
"""Rooms of the metrics whose keys have small axes, in this order."""


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches, which no window and no global state knows."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure, *, dpi: int) -> bytes:
    """The figure as the bytes of a PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def draw_band(
    axes: Axes, steps: Floats, middle: Floats, low: Floats, high: Floats, label: str
) -> None:
    """A line and the band around it."""
    (line,) = axes.plot(steps, middle, label=label)
    axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def draw_run(
    lines: Sequence[dict[str, Any]], status: dict[str, Any], title: str
) -> Figure:
    """The curves of one run: its return across the whole width, and below it small axes for each other number.

    Args:
        lines: of metrics.jsonl.
        status: of run.json.
        title: stands above.
    """
    keys = list({key: None for line in lines for key in line})
    small = [key for room in SMALL for key in keys if key.startswith(room)]
    count = math.ceil(len(small) / COLUMNS)
    figure = blank(WIDTH, MAIN_HEIGHT + SMALL_HEIGHT * count)
    places = figure.add_gridspec(
        1 + count, COLUMNS, height_ratios=[MAIN_HEIGHT, *[SMALL_HEIGHT] * count]
    )
    main = figure.add_subplot(places[0, :])
    main.set(title=title, xlabel="environment steps", ylabel="return")
    _draw_return(main, lines, status)
    steps = column(lines, "step")
    for at, key in enumerate(small):
        axes = figure.add_subplot(places[1 + at // COLUMNS, at % COLUMNS])
        axes.plot(steps, column(lines, key), linewidth=1)
        axes.set_title(key, fontsize="small")
        axes.tick_params(labelsize="x-small")
        axes.grid(alpha=0.3)
    return figure


def column(lines: Sequence[dict[str, Any]], name: str) -> Floats:
    """One number of each line; NaN where a line has none."""
    found = (line.get(name) for line in lines)
    return np.array(
        [math.nan if value is None else value for value in found], np.float64
    )


def _draw_return(
    axes: Axes, lines: Sequence[dict[str, Any]], status: dict[str, Any]
) -> None:
    steps, mean, std = (
        column(lines, name) for name in ("step", "episode/return", "episode/return_std")
    )
    draw_band(
        axes,
        steps,
        mean,
        mean - std,
        mean + std,
        "training: mean of the last episodes ± standard deviation",
    )
    evaluated = [line for line in lines if line.get("eval/return") is not None]
    if evaluated:
        at, score, spread = (
            column(evaluated, name) for name in ("step", "eval/return", "eval/std")
        )
        axes.errorbar(
            at,
            score,
            yerr=spread,
            fmt="o",
            markersize=3,
            capsize=2,
            label="greedy, beside training",
        )
    if (greedy := status.get("greedy_return")) is not None and lines:
        axes.plot(
            steps[-1:],
            [greedy],
            "*",
            markersize=12,
            color="black",
            label=f"greedy, at the end: {greedy:.1f}",
        )
    if (threshold := status.get("threshold")) is not None:
        axes.axhline(
            threshold,
            color="grey",
            linestyle="--",
            linewidth=0.8,
            label=f"threshold {threshold:g}",
        )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
