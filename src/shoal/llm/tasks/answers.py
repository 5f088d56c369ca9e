"""What of an answer is scored: its end tokens taken off, the part that counts, and comparisons with the right one."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

END_TOKENS = (
    "<|endoftext|>",
    "<|im_end|>",
    "<|end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<eos>",
    "<pad>",
    "</s>",
)
"""What tokenizers of known models end a text with."""
MAX_DIGITS = 400
"""A longer number is compared as a text."""
_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_SIGN = r"[-+]?"
_DECIMAL = rf"{_SIGN}(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)"
NUMBER = re.compile(_DECIMAL)
FRACTION = re.compile(rf"({_DECIMAL})\s*/\s*({_INTEGER})")
# A minus directly after a digit subtracts: "3-4" ends with 4.
_LAST_NUMBER = re.compile(rf"(?:(?<![0-9])[-+])?(?:{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+)")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_BOXED = r"\boxed{"


def without_end(answer: str) -> str:
    """The answer without space and known end tokens at its end, and without space at its start."""
    text = answer.strip()
    while True:
        shorter = text
        for token in END_TOKENS:
            shorter = shorter.removesuffix(token).rstrip()
        if shorter == text:
            return text
        text = shorter


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _last_number(text: str) -> str:
    found = _LAST_NUMBER.findall(text)
    return found[-1] if found else ""


def _tagged(text: str) -> str:
    found = _TAG.findall(text)
    return found[-1].strip() if found else ""


def _boxed(text: str) -> str:
    """What the last box of LaTeX holds, braces within it included; nothing where it is not closed."""
    start = text.rfind(_BOXED)
    if start < 0:
        return ""
    start += len(_BOXED)
    depth = 1
    for at in range(start, len(text)):
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
        if depth == 0:
            return text[start:at].strip()
    return ""


def _whole(text: str) -> str:
    return text


EXTRACTS: dict[str, Callable[[str], str]] = {
    "whole": _whole,
    "last_line": _last_line,
    "last_number": _last_number,
    "tag": _tagged,
    "boxed": _boxed,
}
"""How the part of an answer that counts is found: all of it; its last line; its last number; between the last
`<answer>` and `</answer>`; in the last box of LaTeX. Nothing, where it is not there."""


def extracted(answer: str, how: str) -> str:
    """The part of an answer that counts, without end tokens.

    Args:
        answer: as it was sampled.
        how: a key of EXTRACTS.
    """
    return EXTRACTS[how](without_end(answer))


def number_of(text: str) -> Decimal | None:
    """The number that a text is, from its first to its last character; None where it is something else.

    Signs, leading zeros, commas between thousands and decimals are understood; exponents and units are not.
    """
    given = text.strip()
    if len(given) > MAX_DIGITS or not NUMBER.fullmatch(given):
        return None
    return Decimal(given.replace(",", ""))


def same_text(truth: str, answer: str) -> bool:
    """Whether an answer is the right one and nothing else: the same text, or the same number ("+01,000.0" is 1000)."""
    if answer.strip() == truth.strip():
        return True
    right = number_of(truth)
    return right is not None and number_of(answer) == right


def same_number(truth: str, answer: str, *, tolerance: float = 0.0) -> bool:
    """Whether an answer is the right number (or fraction, `a/b`) up to a tolerance relative to it, and nothing else."""
    right, given = value_of(truth), value_of(answer)
    if right is None or given is None:
        return False
    return abs(given - right) <= Decimal(repr(tolerance)) * abs(right)


def value_of(text: str) -> Decimal | None:
    """As `number_of`, fractions included."""
    number = number_of(text)
    if number is not None or len(text) > MAX_DIGITS:
        return number
    parts = FRACTION.fullmatch(text.strip())
    if parts is None:
        return None
    above, below = number_of(parts[1]), number_of(parts[2])
    if above is None or not below:
        return None
    return above / below
