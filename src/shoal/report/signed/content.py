"""Content: what a report is made of, before it becomes HTML or PDF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Heading:
    """A section's name."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences."""

    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, under a heading or without."""

    rows: Sequence[Sequence[str]]
    heading: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG."""

    data: bytes
    about: str


@dataclass(frozen=True, slots=True)
class Plain:
    """Text as it is, line by line, in letters of one width."""

    text: str


@dataclass(frozen=True, slots=True)
class Video:
    """A video: its bytes, or None where it is too large to stand in the page and only its name does."""

    name: str
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Signatures:
    """Lines for names, dates and signatures."""

    roles: Sequence[str]
    columns: Sequence[str]


Block: TypeAlias = Heading | Text | Items | Table | Picture | Plain | Video | Signatures
