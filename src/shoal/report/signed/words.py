"""What a report says, in English and Japanese: the catalogue words.toml, and sentences.toml of what others wrote."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from shoal.report.signed.sentences import in_japanese

Language: TypeAlias = Literal["en", "ja"]


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """By name and language, what is said, with the names of what is put in."""
    file = Path(__file__).with_name("words.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


class Words:
    """Says things in one language."""

    def __init__(self, language: Language = "en") -> None:
        """`language`: en or ja."""
        self.language: Language = language

    def __call__(self, name: str, /, **parts: object) -> str:
        """What stands in the catalogue under a name, with its parts put in."""
        return catalogue()[name][self.language].format(**parts)

    def said(self, text: object) -> str:
        """A sentence that another module wrote in English; names, numbers and what users wrote stay as they are."""
        return in_japanese(str(text)) if self.language == "ja" else str(text)
