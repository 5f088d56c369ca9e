"""Curves: what a run's metrics look like over environment steps, as a figure and as a PNG."""

from __future__ import annotations

import io
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from shoal.run.records import HUGE
from shoal.types.text import decimal, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from matplotlib.axes import Axes

    from shoal.types import Floats

    Line = Mapping[str, float | None]

COLUMNS = 3
WIDTH, MAIN_HEIGHT, SMALL_HEIGHT = 10.0, 3.6, 1.9
"""Inches: of the figure, of the return's axes, and of each row of small ones."""
SMALL_TICKS = 4
"""Marks on the x axis of small axes, at most."""
SMALL = ("loss/", "train/", "info/", "speed/")
"""Beginnings of the keys that have small axes, in this order."""
MOST_SMALL = 24
"""Small axes; each takes some milliseconds to draw."""


@contextmanager
def plain_style(letters: Mapping[str, Any] | None = None) -> Generator[None]:
    """Draws as shoal does, whatever a settings file of matplotlib in the current folder says; text is only text.

    Args:
        letters: matplotlib's settings of the font, where it is another one.
    """
    with style.context(["default", {"text.parse_math": False}, dict(letters or {})]):
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches, which no window and no global state knows."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@plain_style()
def png(figure: Figure, *, dpi: int) -> bytes:
    """The figure as the bytes of a PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def draw_band(
    axes: Axes,
    steps: Floats,
    middle: Floats,
    low: Floats,
    high: Floats,
    label: str,
) -> None:
    """A line and the band around it."""
    (line,) = axes.plot(steps, middle, label=label)
    axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def draw_run(
    lines: Sequence[Line],
    status: Mapping[str, object],
    title: str,
    *,
    say: Callable[[str], str] = str,
    letters: Mapping[str, Any] | None = None,
) -> Figure:
    """The curves of one run: its return across the whole width, and below it small axes for each other number.

    Args:
        lines: of metrics.jsonl.
        status: of run.json.
        title: stands above.
        say: gives a label in another language.
        letters: settings of a font that has that language's letters.
    """
    with plain_style(letters):
        return _drawn(lines, status, title, say)


def _drawn(
    lines: Sequence[Line],
    status: Mapping[str, object],
    title: str,
    say: Callable[[str], str],
) -> Figure:
    small = _small_keys(lines)
    left_out = len(small) - MOST_SMALL
    if left_out > 0:
        small = small[:MOST_SMALL]
        title = say(f"{title} ({left_out:,} more numbers are in metrics.jsonl)")
    count = math.ceil(len(small) / COLUMNS)
    figure = blank(WIDTH, MAIN_HEIGHT + SMALL_HEIGHT * count)
    places = figure.add_gridspec(
        1 + count,
        COLUMNS,
        height_ratios=[MAIN_HEIGHT, *[SMALL_HEIGHT] * count],
    )
    main = figure.add_subplot(places[0, :])
    main.set(title=title, xlabel=say("environment steps"), ylabel=say("return"))
    _draw_return(main, lines, status, say)
    mark_steps(main)
    steps = column(lines, "step")
    for at, key in enumerate(small):
        axes = figure.add_subplot(places[1 + at // COLUMNS, at % COLUMNS])
        axes.plot(steps, column(lines, key), linewidth=1)
        if key == "info/cost":
            _draw_greedy_cost(axes, lines, status)
        axes.set_title(printable(key, 60), fontsize="small")
        axes.tick_params(labelsize="x-small")
        mark_steps(axes, most=SMALL_TICKS)
        axes.grid(alpha=0.3)
    return figure


def _draw_greedy_cost(
    axes: Axes, lines: Sequence[Line], status: Mapping[str, object]
) -> None:
    """What greedy episodes cost, beside training and at its end, as the return's axes show their returns."""
    evaluated = [line for line in lines if line.get("eval/cost") is not None]
    if evaluated:
        places = column(evaluated, "step"), column(evaluated, "eval/cost")
        axes.plot(*places, "o", markersize=3)
    greedy = status.get("greedy_cost")
    if isinstance(greedy, float | int) and abs(greedy) < HUGE:
        last = column(lines, "step")[-1:]
        axes.plot(last, [greedy], "*", markersize=9, color="black")


def mark_steps(axes: Axes, most: int = 10) -> None:
    """Counts environment steps on the x axis as 50k and 1.5M, at few places: whole numbers run into each other."""
    axes.xaxis.set_major_locator(MaxNLocator(most))
    axes.xaxis.set_major_formatter(FuncFormatter(counted))


def counted(steps: float, _: object = None) -> str:
    """A number of steps in few characters: 500, 50k, 1.5M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(steps) >= size:
            return f"{steps / size:g}{letter}"
    return f"{steps:g}"


def column(lines: Sequence[Line], name: str) -> Floats:
    """One number of each line; NaN where a line has none."""
    values = [line.get(name) for line in lines]
    return np.array(values, np.float64)  # None becomes NaN


def _small_keys(lines: Sequence[Line]) -> list[str]:
    """The keys with small axes, in the order of SMALL and then of their appearance."""
    keys = list(dict.fromkeys(key for line in lines for key in line))
    found: list[str] = []
    for beginning in SMALL:
        found += [key for key in keys if key.startswith(beginning)]
    return found


def _draw_return(
    axes: Axes,
    lines: Sequence[Line],
    status: Mapping[str, object],
    say: Callable[[str], str],
) -> None:
    steps = column(lines, "step")
    mean = column(lines, "episode/return")
    std = column(lines, "episode/return_std")
    label = "training: mean of the last episodes ± standard deviation"
    draw_band(axes, steps, mean, mean - std, mean + std, say(label))
    evaluated = [line for line in lines if line.get("eval/return") is not None]
    if evaluated:
        axes.errorbar(
            column(evaluated, "step"),
            column(evaluated, "eval/return"),
            yerr=column(evaluated, "eval/std"),
            fmt="o",
            markersize=3,
            capsize=2,
            label=say("greedy, beside training"),
        )
    greedy = status.get("greedy_return")
    if isinstance(greedy, float | int) and abs(greedy) < HUGE and lines:
        label = say(f"greedy, at the end: {decimal(greedy)}")
        axes.plot(steps[-1:], [greedy], "*", markersize=12, color="black", label=label)
    threshold = status.get("threshold")
    if isinstance(threshold, float | int) and abs(threshold) < HUGE:
        axes.axhline(
            threshold,
            color="gray",
            linestyle="--",
            linewidth=0.8,
            label=say(f"threshold {threshold:g}"),
        )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
