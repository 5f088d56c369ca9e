"""Whether two mathematical expressions are the same, as math-verify reads them."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from shoal.types import ConfigError

MAX_CHARACTERS = 2000
"""A longer expression is no answer; parsing it takes more than linear time."""


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

    Its own time-outs, which raise outside the main thread, are off: an answer can take minutes. A `ScorerPool` with
    workers ends those.

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
    return bool(library.verify(right, given, timeout_seconds=None))


def math_score(truth: str, answer: str) -> float:
    """1 for the same expression, else 0: a scorer for a pool."""
    return float(same_expression(truth, answer))


def _parsed(library: Any, text: str) -> list[Any]:
    """The expressions that a text ends with; one without signs of LaTeX is read as LaTeX too."""
    found: list[Any] = library.parse(text, parsing_timeout=None)
    if not found and "$" not in text:
        found = library.parse(f"${text}$", parsing_timeout=None)
    return found
