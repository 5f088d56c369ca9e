"""The learning curves of a report: those of a run as always, those of several seeds with their interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import font_manager

from shoal.report.curves import blank, draw_band, draw_run, mark_steps, plain_style, png
from shoal.report.groups import common_grid, interpolate
from shoal.report.signed.to_pdf import font_of
from shoal.report.statistics import band
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.report.signed.gather import Told
    from shoal.report.signed.words import Words

DPI = 110


SMALL = ("loss/", "train/", "info/", "speed/", "curiosity/", "groups/", "actors/")
"""Beginnings of the numbers that are drawn among all curves only."""


def draw(told: Sequence[Told], words: Words, title: str) -> bytes:
    """A PNG of the learning curves."""
    curves = [curve for one in told if (curve := one.curve()) is not None]
    if len(told) == 1 or len(curves) < 2:
        return _alone(told[0], words, title)
    try:
        grid = common_grid(curves)
    except ConfigError:  # no steps in common
        return _alone(told[0], words, title)
    drawn = band(interpolate(curves, grid), np.random.Generator(np.random.PCG64(0)))
    with plain_style(_font(words)):
        figure = blank(10, 4)
        axes = figure.add_subplot()
        for curve in curves:
            axes.plot(curve.steps, curve.returns, color="gray", alpha=0.4, linewidth=1)
        label = words("seeds", count=len(curves), seeds=_seeds(told))
        draw_band(axes, grid, drawn.middle, drawn.low, drawn.high, label)
        threshold = told[0].number("threshold")
        if threshold is not None:
            axes.axhline(threshold, color="gray", linestyle="--", linewidth=0.8)
        axes.set(xlabel=words("steps_axis"), ylabel=words("return_axis"))
        axes.set_title(printable(title))
        mark_steps(axes)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        return png(figure, dpi=DPI)


def draw_all(told: Told, words: Words, title: str) -> bytes:
    """A PNG of all curves of one run, which are named as metrics.jsonl names them."""
    return _drawn(told, told.lines, words, title)


def _alone(told: Told, words: Words, title: str) -> bytes:
    """The return of one run."""
    kept = [
        {name: value for name, value in line.items() if not name.startswith(SMALL)}
        for line in told.lines
    ]
    return _drawn(told, kept, words, title)


def _drawn(
    told: Told, lines: Sequence[Mapping[str, Any]], words: Words, title: str
) -> bytes:
    figure = draw_run(
        lines,
        told.status,
        printable(title),
        say=words.said,
        letters=_font(words),
    )
    return png(figure, dpi=DPI)


def _seeds(told: Sequence[Told]) -> str:
    return ", ".join(one.seed for one in told)


def _font(words: Words) -> dict[str, str]:
    """Settings for the language's letters; where their font is not installed, boxes stand for them."""
    if words.language == "en":
        return {}
    try:
        path = font_of(words.language)
    except ConfigError:
        return {}
    font_manager.fontManager.addfont(path)
    return {"font.family": font_manager.FontProperties(fname=path).get_name()}
