"""Tasks from a file: one JSON object a line, with a prompt and its answer."""

from __future__ import annotations

import json
from functools import cached_property
from math import isfinite
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.llm.tasks.answers import EXTRACTS, extracted, same_number, same_text
from shoal.llm.tasks.names import FILE
from shoal.llm.tasks.task import Message, Prompt
from shoal.types import ConfigError, check_ranges, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

UNJUDGED = "none"
"""What leaves judging to other scorers."""
SCORINGS = ("exact", "numeric", "math", UNJUDGED)
ROLES = ("system", "user", "assistant", "tool")
MAX_BYTES = 2**30
MAX_LINE = 2**20
"""Bytes of a line: more than any context holds."""
MAX_PROMPTS = 10_000_000


class Line(NamedTuple):
    """One line of a file."""

    question: str | tuple[Message, ...]
    truth: Any
    """None where there is no answer."""
    fields: dict[str, Any]
    """What else it says."""


class PromptsFile:
    """Prompts of a JSONL file, in an order that the seed draws, again and again.

    A line is `{"prompt": TEXT, "answer": ...}`, or with messages in the place of the text:
    `{"prompt": [{"role": "user", "content": TEXT}], "answer": ...}`. The answer is a text or a number, or a list of
    those, any of which is right. Other fields are `Prompt.fields`, for scorers of your own.
    """

    def __init__(
        self,
        path: str,
        *,
        seed: int = 0,
        scoring: str = "exact",
        extract: str = "whole",
        tolerance: float = 0.0,
        shuffle: bool = True,
    ) -> None:
        """Reads the file.

        Args:
            path: of the file, at most 1 GiB.
            seed: of the order.
            scoring: `exact` (the same text or number, and nothing else), `numeric` (the same number or fraction, up to
                the tolerance), `math` (the same expression, as math-verify reads it) or `none`: other scorers judge
                (`language.scorers`), and lines need no answer.
            extract: the part of an answer that is scored: `whole`, `last_line`, `last_number`, `tag`
                (`<answer>...</answer>`) or `boxed` (LaTeX).
            tolerance: of `numeric`, relative to the right number.
            shuffle: false keeps the file's order.

        Raises:
            ConfigError: there is no such file, or a line is wrong; the message names line and field.
        """
        self.name = FILE + path
        self.seed, self.shuffle = seed, shuffle
        self.scoring, self.extract, self.tolerance = scoring, extract, tolerance
        self._check()
        self._lines = _read(
            Path(path).expanduser(), self.name, answers=scoring != UNJUDGED
        )
        if scoring == "math":
            from shoal.llm.scorers.math import load

            load()

    def __len__(self) -> int:
        """How many prompts the file has."""
        return len(self._lines)

    def prompt(self, index: int) -> Prompt:
        """The prompt of this number; the file begins again, in the same order, after its last one."""
        if index < 0:
            raise ValueError(
                f"{self.name}: prompts are counted from 0, asked for {index}"
            )
        place = self._order[index % len(self._lines)]
        question, truth, fields = self._lines[place]
        return Prompt(index=index, question=question, truth=truth, fields=fields)

    def score(self, prompt: Prompt, answer: str) -> float:
        """1 for a right answer, else 0; ConfigError where nothing says what is right."""
        if self.scoring == UNJUDGED:
            raise ConfigError(
                f"{self.name}: scoring='none' leaves judging to language.scorers; name some, or another scoring"
            )
        given = extracted(answer, self.extract)
        right = prompt.truth if isinstance(prompt.truth, list) else [prompt.truth]
        return float(any(self._matches(str(truth), given) for truth in right))

    def solution(self, prompt: Prompt) -> str:
        """A right answer; ConfigError for a line without one."""
        truth = prompt.truth
        if truth is None:
            raise ConfigError(
                f"{self.name}: a line has no answer that a model could learn from; name a model that is there, "
                "or give every line an answer"
            )
        return str(truth[0] if isinstance(truth, list) else truth)

    @cached_property
    def _order(self) -> list[int]:
        order = list(range(len(self._lines)))
        if self.shuffle:
            Random(self.seed).shuffle(order)
        return order

    def _matches(self, truth: str, given: str) -> bool:
        if self.scoring == "math":
            from shoal.llm.scorers.math import same_expression

            return same_expression(truth, given)
        if self.scoring == "numeric":
            return same_number(truth, given, tolerance=self.tolerance)
        return same_text(truth, given)

    def _check(self) -> None:
        if self.scoring not in SCORINGS:
            raise ConfigError(
                f"{self.name}: scoring is one of {', '.join(SCORINGS)}, got {self.scoring!r}"
            )
        if self.extract not in EXTRACTS:
            raise ConfigError(
                f"{self.name}: extract is one of {', '.join(EXTRACTS)}, got {self.extract!r}"
            )
        check_ranges(self, tolerance=(0.0, 1.0))
        if self.tolerance and self.scoring != "numeric":
            raise ConfigError(
                f"{self.name}: tolerance is for scoring='numeric', but this is {self.scoring!r}; leave it out"
            )


def _read(path: Path, name: str, *, answers: bool) -> list[Line]:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(
                f"{name} has {size:,} bytes, at most {MAX_BYTES:,} are read; split it"
            )
        with path.open("rb") as file:
            lines = _read_lines(file.readline, name, answers=answers)
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {text_of(error)}") from error
    if not lines:
        raise ConfigError(
            f'{name} is empty; a line is {{"prompt": "What is 2 + 2?", "answer": "4"}}'
        )
    return lines


def _read_lines(readline: Any, name: str, *, answers: bool) -> list[Line]:
    found: list[Line] = []
    number = 0
    while line := readline(MAX_LINE + 1):
        number += 1
        where = f"{name}, line {number}"
        if len(line) > MAX_LINE:
            raise ConfigError(f"{where} is longer than {MAX_LINE:,} bytes")
        if number > MAX_PROMPTS:
            raise ConfigError(f"{name} has more than {MAX_PROMPTS:,} lines; split it")
        if line.strip():
            found.append(_read_line(line, where, answers=answers))
    return found


def _read_line(line: bytes, where: str, *, answers: bool) -> Line:
    """A line of the file; `answers`: whether it must have one."""
    try:
        given: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not JSON: {text_of(error)}") from error
    if not isinstance(given, dict):
        raise ConfigError(
            f"{where} is a {type(given).__name__}; a line is an object with prompt and answer"
        )
    for field in ("prompt", "answer") if answers else ("prompt",):
        if field not in given:
            advice = (
                "; where a scorer of yours judges (language.scorers), scoring='none' needs none"
                if field == "answer"
                else ""
            )
            raise ConfigError(
                f"{where} has no field {field!r}, but {', '.join(map(repr, given)) or 'none'}{advice}"
            )
    fields = {name: given[name] for name in given if name not in ("prompt", "answer")}
    truth = _truth(given["answer"], where) if "answer" in given else None
    return Line(_question(given["prompt"], where), truth, fields)


def _question(given: Any, where: str) -> str | tuple[Message, ...]:
    if isinstance(given, str):
        if not given.strip():
            raise ConfigError(f"{where}: the field 'prompt' is empty")
        return _text(given, f"{where}: the field 'prompt'")
    if not isinstance(given, list) or not given:
        raise ConfigError(
            f"{where}: the field 'prompt' is a text or a list of messages, got {_shown(given)}"
        )
    return tuple(
        _message(one, f"{where}: the field 'prompt', message {number}")
        for number, one in enumerate(given)
    )


def _message(given: Any, where: str) -> Message:
    if not isinstance(given, dict):
        raise ConfigError(
            f"{where}, is an object with role and content, got {_shown(given)}"
        )
    fields: Mapping[str, Any] = given
    role, content = fields.get("role"), fields.get("content")
    if role not in ROLES:
        raise ConfigError(
            f"{where}: the field 'role' is one of {', '.join(ROLES)}, got {_shown(role)}"
        )
    if not isinstance(content, str):
        raise ConfigError(
            f"{where}: the field 'content' is a text, got {_shown(content)}"
        )
    return Message(role=role, content=_text(content, f"{where}: the field 'content'"))


def _text(given: str, where: str) -> str:
    """The text; ConfigError for half a character, which no model can read."""
    try:
        given.encode()
    except UnicodeEncodeError as error:
        half = ord(given[error.start])
        raise ConfigError(
            f"{where} has half a character, \\u{half:04x} without the other half; write the character itself"
        ) from error
    return given


def _truth(given: Any, where: str) -> Any:
    """The answer, numbers as texts: `4` is written so, whatever the model writes."""
    if isinstance(given, list):
        if not given:
            raise ConfigError(f"{where}: the field 'answer' is an empty list")
        return [_literal(one, where) for one in given]
    return _literal(given, where)


def _literal(given: Any, where: str) -> str:
    if isinstance(given, str):
        if not given.strip():
            raise ConfigError(f"{where}: the field 'answer' is empty")
        return _text(given, f"{where}: the field 'answer'")
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if is_number and isfinite(given):
        return str(given)
    raise ConfigError(
        f"{where}: the field 'answer' is a text, a finite number or a list of those, got {_shown(given)}; write others "
        "as the text that is to be answered"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
