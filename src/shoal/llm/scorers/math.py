"""Whether two mathematical expressions are the same, as math-verify reads them."""

from __future__ import annotations

import importlib
import logging
import re
from typing import TYPE_CHECKING, Any

from shoal.llm.tasks.answers import EXTRACTS, extracted
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.llm.tasks.task import Prompt

SENTENCE = 3
"""Words from which on a text is prose with an expression in it."""
_WORD = re.compile(r"(?<!\\)\b[A-Za-z]{2,}")
_BOXED = r"\boxed"
MAX_CHARACTERS = 2000
"""A longer expression is no answer; parsing it takes more than linear time."""


class MathVerifier:
    """Pays 1 for an answer that is the same expression as the prompt's truth, else 0: a scorer for a pool.

    An expression can take minutes, or for ever: only a pool with workers ends those, by its `timeout_s`.
    """

    def __init__(self, extract: str = "whole") -> None:
        """Imports math-verify, which takes a second.

        Args:
            extract: the part of an answer that is read: `whole` (its last expression), `last_line`, `last_number`,
                `tag` or `boxed`.

        Raises:
            ConfigError: math-verify is missing, or there is no such part.
        """
        if extract not in EXTRACTS:
            raise ConfigError(
                f"extract is one of {', '.join(EXTRACTS)}, got {extract!r}"
            )
        self.extract = extract
        load()

    def __call__(self, prompt: Prompt, answer: str) -> float:
        """1 or 0; the prompt's truth is a text, or a list of texts any of which is right."""
        given = extracted(answer, self.extract)
        right = prompt.truth if isinstance(prompt.truth, list) else [prompt.truth]
        return float(any(same_expression(str(truth), given) for truth in right))


def load() -> Any:
    """The module math_verify; ConfigError where it is not installed."""
    try:
        return importlib.import_module("math_verify")
    except ImportError as error:
        raise ConfigError(
            f'scoring of mathematics needs a package that is not installed here: {error}; pip install "shoal-rl[llm]"'
        ) from error


def same_expression(truth: str, answer: str) -> bool:
    """Whether an answer is the same expression as the right one; false where one of them cannot be read.

    The library's own time-outs are off: they raise in threads.

    Raises:
        ConfigError: math-verify is missing.
    """
    library = load()
    if len(answer) > MAX_CHARACTERS or not answer.strip():
        return False
    for name in ("math_verify.parser", "math_verify.grader"):
        # A line for each answer that is no mathematics says nothing here.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    right = _parsed(library, truth)
    given = _parsed(library, answer)
    if not right or not given:
        return False
    if _is_percent(truth) != _is_percent(answer):
        return False  # the library takes 10 % for 10
    return bool(library.verify(right, given, timeout_seconds=None))


def _is_percent(text: str) -> bool:
    return text.rstrip(" $.}").endswith("%")


def _parsed(library: Any, text: str) -> list[Any]:
    """The expression that a text is, or else the last one in it.

    What is not marked as mathematics the library searches for a number: of "x + 1" it takes the 1.
    """
    marked = "$" in text or _BOXED in text or "\n" in text.strip()
    if not marked and len(_WORD.findall(text)) < SENTENCE:
        found: list[Any] = library.parse(f"${text.strip()}$", parsing_timeout=None)
        if found:
            return found
    return library.parse(text, parsing_timeout=None)
