"""Text that came from somewhere else, as it may be shown: on a terminal, in a table, in a spreadsheet."""

from __future__ import annotations

import re

COLORS = re.compile(r"\x1b\[[0-9;]*m")
"""What libraries color their warnings with."""
MOST = 1000
"""Characters of a line that are shown."""
FORMULA_SIGNS = ("=", "+", "-", "@")
"""What a spreadsheet takes for the beginning of a formula."""


def printable(text: object, most: int = MOST) -> str:
    """A text in one line of at most `most` characters; what would steer a terminal is shown as an escape."""
    kept = shortened(str(text), most)
    if kept.isprintable():
        return kept
    return shortened("".join(map(_escaped, kept)), most)


def shortened(text: str, most: int) -> str:
    """A text of at most `most` characters; of a longer one the first ones, and an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def printable_lines(text: object) -> str:
    """A text of several lines, each as `printable`."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


def without_colors(text: object) -> str:
    """A text without the codes that color it on a terminal; elsewhere they are noise."""
    return COLORS.sub("", str(text))


def cell(text: object, most: int = 200) -> str:
    """A text as a table's cell: `printable`, with a quote before what a spreadsheet would calculate."""
    shown = printable(text, most)
    if shown.startswith(FORMULA_SIGNS) and not _is_figures(shown):
        return f"'{shown}"
    return shown


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "replace").decode()


def _is_figures(text: str) -> bool:
    """Whether a text is a number, or one with others and words behind it, as `-237.8, cost 0.0` or `-3 ± 1`."""
    if text == "-":  # what a table shows for nothing
        return True
    first, *others = (part.strip(",%") for part in text.split())
    return _is_number(first) and all(
        part in ("", "±") or part.isalpha() or _is_number(part) for part in others
    )


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def decimal(value: float) -> str:
    """A return as lists and lines show it: one decimal, and of numbers below 10 three digits (9.74, -0.853, 1.0)."""
    if abs(value) >= 10 or value != value:
        return f"{value:.1f}" if abs(value) < 1e9 else f"{value:.4g}"
    shown = f"{value:.3g}"
    return shown if "." in shown or "e" in shown else f"{shown}.0"
