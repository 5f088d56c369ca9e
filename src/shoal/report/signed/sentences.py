"""Sentences that other modules have written, said in Japanese: the catalogue sentences.toml, and what fits it."""

from __future__ import annotations

import re
import string
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LONGEST, DEEPEST, MOST = 1000, 6, 8
"""Characters of a text that is looked up, sentences inside one another, and side by side: strangers write texts too."""
BETWEEN = "; "
"""Between sentences that stand in one text."""
SEMICOLON = "\N{FULLWIDTH SEMICOLON}"
OPEN, CLOSE = "\N{FULLWIDTH LEFT PARENTHESIS}", "\N{FULLWIDTH RIGHT PARENTHESIS}"
NAMED = re.compile(r"(.+) \((\w+)\)")
"""A sentence, and the rule that found it."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One entry of the catalogue."""

    literals: tuple[str, ...]
    """Its fixed parts in English, one more than there are holes."""
    holes: tuple[tuple[str, str], ...]
    """Their names, and how each is filled: as it is (empty), in Japanese too (s), whatever it holds (r)."""
    ja: str

    @classmethod
    def of(cls, en: str, ja: str) -> Sentence:
        """From an entry's texts."""
        literals, holes = [""], list[tuple[str, str]]()
        for literal, name, _, how in string.Formatter().parse(en):
            literals[-1] += literal
            if name is not None:
                holes.append((name, how or ""))
                literals.append("")
        return cls(tuple(literals), tuple(holes), ja)

    @property
    def order(self) -> tuple[bool, int]:
        """Of several that fit, the first is meant: one that begins with a fixed part, then the one with the most."""
        return not self.literals[0], -sum(map(len, self.literals))

    def fit(self, text: str) -> dict[str, str] | None:
        """What stands in its holes where a text is this sentence, each as short as may be; None where it is not."""
        first, *inner = self.literals
        if not inner:
            return {} if text == first else None
        last = inner.pop()
        end = len(text) - len(last)
        if not text.startswith(first) or not text.endswith(last) or end < len(first):
            return None
        found: list[str] = []
        at = len(first)
        for literal in inner:
            place = text.find(literal, at, end)
            if place < 0:
                return None
            found.append(text[at:place])
            at = place + len(literal)
        found.append(text[at:end])
        for (_, how), part in zip(self.holes, found, strict=True):
            if not part or (not how and BETWEEN in part):
                return None
        return {name: part for (name, _), part in zip(self.holes, found, strict=True)}

    def said(self, parts: dict[str, str], depth: int) -> str:
        """The sentence in Japanese, with its parts, inside of `depth` others."""
        filled = {
            name: in_japanese(parts[name], depth + 1) if how == "s" else parts[name]
            for name, how in self.holes
        }
        return self.ja.format(**filled)


@cache
def entries() -> dict[str, list[dict[str, str]]]:
    """The catalogue: by the module that writes them, its sentences in both languages."""
    file = Path(__file__).with_name("sentences.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


@cache
def _sentences() -> list[Sentence]:
    """All of them, in the order in which they are tried."""
    found = [Sentence.of(**one) for part in entries().values() for one in part]
    return sorted(found, key=lambda one: one.order)


def in_japanese(text: str, depth: int = 0) -> str:
    """A text of the catalogue's sentences in Japanese; what is none of them stays as it is.

    Several sentences with semicolons between them are several, and a sentence with a rule's name behind it is one.

    Args:
        text: in English.
        depth: how many sentences it stands in.
    """
    if len(text) > LONGEST or depth > DEEPEST:
        return text
    named = NAMED.fullmatch(text)
    if named is not None and BETWEEN not in text:
        said = in_japanese(named[1], depth + 1)
        if said != named[1]:
            return f"{said}{OPEN}{named[2]}{CLOSE}"
    for sentence in _sentences():
        parts = sentence.fit(text)
        if parts is not None:
            return sentence.said(parts, depth)
    pieces = text.split(BETWEEN, MOST)
    if len(pieces) == 1:
        return text
    said_pieces = [in_japanese(piece, depth + 1) for piece in pieces]
    return text if said_pieces == pieces else SEMICOLON.join(said_pieces)
