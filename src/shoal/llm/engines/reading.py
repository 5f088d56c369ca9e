"""What an engine's reply must hold; each function names what is missing, and where."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from shoal.llm.engines.connection import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence


def tokens_of(given: object, where: str) -> list[int]:
    """A list of tokens; an absent one is empty.

    Raises:
        EngineError: it is none.
    """
    if given is None:
        return []
    if not isinstance(given, list) or not all(_is_token(one) for one in given):
        raise EngineError(f"{where}: its tokens are no list of numbers")
    return given


def logprobs_of(given: Sequence[Any], count: int, where: str) -> list[float]:
    """As many finite log-probabilities, none above 0, as there are tokens.

    Raises:
        EngineError: there are fewer or more, or one is no log-probability.
    """
    if len(given) != count:
        raise EngineError(
            f"{where}: it gave {len(given)} log-probabilities for {count} tokens; all are needed to learn from them"
        )
    for one in given:
        if not isinstance(one, float | int) or not isfinite(one) or one > 1e-3:
            raise EngineError(f"{where}: {one!r} is no log-probability")
    return [min(float(one), 0.0) for one in given]


def spans_of(given: object, where: str) -> list[tuple[str, int, int]] | None:
    """Spans of versions, as objects with version, start and end; None where there are none.

    Raises:
        EngineError: they are no such objects.
    """
    if not given:
        return None
    if not isinstance(given, list):
        raise EngineError(f"{where}: its weight_versions are no list")
    try:
        return [
            (str(one["version"]), int(one["start"]), int(one["end"])) for one in given
        ]
    except (KeyError, TypeError, ValueError):
        raise EngineError(
            f"{where}: its weight_versions lack version, start or end"
        ) from None


def _is_token(one: object) -> bool:
    return isinstance(one, int) and not isinstance(one, bool) and one >= 0
