"""A report as a PDF of pages of A4, by fpdf2; its letters stand in it."""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.report.signed.content import (
    Heading,
    Items,
    Picture,
    Plain,
    Signatures,
    Table,
    Text,
    Video,
)
from shoal.types import ConfigError
from shoal.types.text import printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.report.signed.content import Block
    from shoal.report.signed.words import Language, Words

SIZE, SMALL = 10, 8
"""Points of letters: of text, and of tables and plain text."""
LINE = 5.2
"""Millimeters from one line to the next."""
NEEDS = "a PDF needs fpdf2 and, in Japanese, a font: pip install 'shoal-rl[report]'"
LONG = 300


def check_pdf(language: Language) -> None:
    """ConfigError where no PDF can be written in this language: a package is not installed."""
    if find_spec("fpdf") is None:
        raise ConfigError(NEEDS)
    font_of(language)


def font_of(language: Language) -> Path:
    """The file of a font that has the language's letters: matplotlib's own, or that of matplotlib-fontja.

    Raises:
        ConfigError: matplotlib-fontja is not installed.
    """
    if language == "en":
        from matplotlib import get_data_path

        return Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    spec = find_spec("matplotlib_fontja")  # found, not imported: it changes settings
    if spec is None or spec.origin is None:
        raise ConfigError(NEEDS)
    return Path(spec.origin).parent / "fonts" / "ipaexg.ttf"


def to_pdf(title: str, about: str, blocks: Sequence[Block], words: Words) -> bytes:
    """The PDF.

    Args:
        title: its heading.
        about: a line below it.
        blocks: its content; videos are named only.
        words: its language.

    Raises:
        ConfigError: see `check_pdf`.
    """
    check_pdf(words.language)
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    module: Any = importlib.import_module("fpdf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that a font lacks are shown as none
        pages = _Pages(module, title, words)
        pages.text(title, 18, after=2)
        pages.text(about, SMALL, after=2)
        for block in blocks:
            pages.add(block)
        return bytes(pages.pdf.output())


class _Pages:
    """Pages that blocks are added to."""

    def __init__(self, module: Any, title: str, words: Words) -> None:
        self.module, self.words = module, words
        self.pdf = module.FPDF(format="A4")
        self.pdf.set_title(printable(title))
        self.pdf.set_lang(words.language)
        self.pdf.set_creator("shoal")
        self.pdf.set_auto_page_break(auto=True, margin=18)
        self.pdf.add_font("body", fname=str(font_of(words.language)))
        self.pdf.alias_nb_pages()
        self.pdf.add_page()

    def add(self, block: Block) -> None:
        """Adds a block."""
        match block:
            case Heading(text, level):
                self._heading(text, level)
            case Text(text):
                self.text(text, SIZE)
            case Items(texts):
                self._lines([f"- {printable(text)}" for text in texts], SIZE, 0.8)
            case Plain(text):
                self._lines(printable_lines(text).split("\n"), SMALL, 0)
            case Table(rows, heading):
                self._table(rows, heading)
            case Picture(data, _):
                self._picture(data)
            case Video(name, _):
                self.text(self.words("see_html", file=printable(name)), SIZE)
            case Signatures(roles, columns):
                self._signatures(roles, columns)

    def text(self, text: str, size: float, *, after: float = 1.5) -> None:
        """Adds a paragraph."""
        self.pdf.set_font("body", size=size)
        height = LINE * max(size, SIZE) / SIZE if size >= SIZE else LINE * 0.85
        self.pdf.set_x(self.pdf.l_margin)
        said = printable(text, 4000)
        if not said:
            self.pdf.ln(height)
            return
        self.pdf.multi_cell(0, height, said, new_x="LMARGIN", new_y="NEXT", align="L")
        self.pdf.ln(after)

    def _lines(self, lines: Sequence[str], size: float, after: float) -> None:
        for line in lines:
            self.text(line, size, after=after)

    def _heading(self, text: str, level: int) -> None:
        if self.pdf.will_page_break(30):
            self.pdf.add_page()
        self.pdf.ln(2)
        self.text(text, 14 if level == 2 else 11)

    def _picture(self, data: bytes) -> None:
        from PIL import Image

        width, height = Image.open(io.BytesIO(data)).size
        wide = min(self.pdf.epw, 0.9 * self.pdf.eph * width / height)
        if self.pdf.will_page_break(wide * height / width):
            self.pdf.add_page()
        self.pdf.image(io.BytesIO(data), w=wide)
        self.pdf.ln(2)

    def _table(self, rows: Sequence[Sequence[str]], heading: Sequence[str]) -> None:
        self.pdf.set_font("body", size=SMALL)
        columns = max((len(row) for row in rows), default=len(heading))
        if not columns:
            return
        widths = (2, 3) if columns == 2 else _widths(rows, heading, columns)
        style = self.module.fonts.FontFace(emphasis="", fill_color=(235, 235, 235))
        with self.pdf.table(
            first_row_as_headings=bool(heading),
            headings_style=style,
            col_widths=widths,
            line_height=4.2,
            text_align="LEFT",
            borders_layout="HORIZONTAL_LINES",
        ) as table:
            for cells in [heading, *rows] if heading else rows:
                row = table.row()
                for text in cells:
                    row.cell(printable(text, LONG))
        self.pdf.ln(3)

    def _signatures(self, roles: Sequence[str], columns: Sequence[str]) -> None:
        if self.pdf.will_page_break(16.0 * len(roles) + 8):
            self.pdf.add_page()
        self.pdf.set_font("body", size=SMALL)
        width = self.pdf.epw / (len(columns) + 0.6)
        for role in roles:
            self.pdf.ln(9)
            self.pdf.cell(0.6 * width, 6, printable(role))
            for name in columns:
                x, y = self.pdf.get_x(), self.pdf.get_y()
                self.pdf.line(x, y + 1, x + width - 4, y + 1)
                self.pdf.cell(width, 6, printable(name))
            self.pdf.ln(6)


def _widths(
    rows: Sequence[Sequence[str]], heading: Sequence[str], columns: int
) -> tuple[float, ...]:
    """Relative widths of columns by the longest of their cells, none of them below a third of another."""
    longest = [4.0] * columns
    for row in [heading, *rows]:
        for at, text in enumerate(row):
            longest[at] = max(longest[at], min(36.0, float(len(text))))
    return tuple(longest)
