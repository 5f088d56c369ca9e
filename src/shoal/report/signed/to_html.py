"""A report as one HTML page, in which everything stands that it shows."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from shoal.report.html import STYLE
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
from shoal.types.text import cell, printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoal.report.signed.content import Block
    from shoal.report.signed.words import Words

POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'\">"
)
"""Browsers run and load nothing for the page: pictures, videos and style stand in it."""
MORE_STYLE = """
video { max-width: 100% } .signed td { border-bottom: 1px solid; height: 2.6rem; min-width: 11rem }
.signed td, .signed th { vertical-align: bottom }
@media print { h2 { break-after: avoid } table, img { break-inside: avoid } body { max-width: none } }
"""
LONG = 400
"""Letters of a cell."""


def to_html(title: str, about: str, blocks: Sequence[Block], words: Words) -> str:
    """The page.

    Args:
        title: its heading.
        about: a line below it.
        blocks: its content.
        words: its language.
    """
    head = (
        f'<meta charset="utf-8">{POLICY}<meta name="viewport" content="width=device-width">'
        f"<title>{escape(printable(title))}</title><style>{STYLE}{MORE_STYLE}</style>"
    )
    body = "\n".join([_tag("h1", title), _tag("p", about), *map(_Maker(words), blocks)])
    return (
        f'<!doctype html>\n<html lang="{words.language}"><head>{head}</head>\n<body>\n<main>\n{body}\n</main>\n'
        "</body></html>\n"
    )


class _Maker:
    """Makes HTML of a block."""

    def __init__(self, words: Words) -> None:
        self.words = words

    def __call__(self, block: Block) -> str:
        match block:
            case Heading(text, level):
                return _tag(f"h{level}", text)
            case Text(text):
                return _tag("p", text)
            case Plain(text):
                return f"<pre>{escape(printable_lines(text))}</pre>"
            case Items(texts):
                return f"<ul>{''.join(_tag('li', text) for text in texts)}</ul>"
            case Table(rows, heading):
                return _table(rows, heading)
            case Picture(data, about):
                return (
                    f'<img alt="{escape(printable(about))}" src="{_data("png", data)}">'
                )
            case Video():
                return self._video(block)
            case Signatures(roles, columns):
                lines = [[role, *[""] * len(columns)] for role in roles]
                return f'<div class="signed">{_table(lines, ["", *columns])}</div>'

    def _video(self, video: Video) -> str:
        name = printable(video.name)
        if video.data is None:
            return _tag("p", self.words("too_large", file=name))
        if name.endswith(".gif"):
            return f'<img alt="{escape(name)}" src="{_data("gif", video.data)}">'
        source = _data("mp4", video.data, kind="video")
        return (
            f'<video controls muted aria-label="{escape(name)}" src="{source}"></video>'
        )


def _data(suffix: str, data: bytes, *, kind: str = "image") -> str:
    return f"data:{kind}/{suffix};base64,{base64.b64encode(data).decode()}"


def _tag(kind: str, text: str) -> str:
    return f"<{kind}>{escape(printable(text))}</{kind}>"


def _table(rows: Iterable[Iterable[str]], heading: Sequence[str]) -> str:
    lines = [_row(heading, "th")] if heading else []
    lines += [_row(row, "td") for row in rows]
    body = "\n".join(lines)
    return f"<table>\n{body}\n</table>"


def _row(cells: Iterable[str], tag: str) -> str:
    inside = "".join(f"<{tag}>{escape(cell(text, LONG))}</{tag}>" for text in cells)
    return f"<tr>{inside}</tr>"
