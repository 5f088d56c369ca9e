"""What a scorer says of an answer, and how it is read: anything but a finite number is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from decimal import Decimal
from math import copysign, isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, cast

from shoal.llm.stage.work import Failed, failed
from shoal.types import RAISED, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.llm.tasks.task import Prompt


MOST = 1e15
"""What a score may be, either way: squares of rewards, summed over a batch, must be finite in float32."""


@dataclass(frozen=True, slots=True)
class Score:
    """What an answer earns."""

    value: float
    """The reward."""
    parts: Mapping[str, float] = field(default_factory=dict[str, float])
    """What it is made of, for reports."""
    steps: tuple[float, ...] = ()
    """A reward for each step of the answer; empty where only the whole is judged."""


class ScorerError(RuntimeError):
    """A scorer failed and the policy is to raise; the message names the task, the prompt and what to do."""

    def __init__(self, text: str, key: int) -> None:
        """`key`: which answer failed, as it was submitted."""
        super().__init__(text)
        self.key = key


class Scorer(Protocol):
    """Scores one answer. Any function of a prompt and an answer that returns a number is one.

    One that is faster on many at once may also have `batch_size`, how many it takes, and
    `score_batch(pairs) -> list`, with a number, a Score or an exception for each (prompt, answer).
    """

    def __call__(self, prompt: Prompt, answer: str, /) -> float | Score:
        """What the answer earns; an exception counts as a failure of the scorer, never as a low score."""
        ...


def read_score(given: object) -> Score:
    """What a scorer returned, read.

    Raises:
        ValueError: it is no finite number, or a part or step of it is none.
    """
    if isinstance(given, Score):
        parts = {
            name: _number(part, f"part {name!r} of the score")
            for name, part in given.parts.items()
        }
        steps = tuple(
            _number(step, f"step {number} of the score")
            for number, step in enumerate(given.steps)
        )
        return Score(_number(given.value, "the score"), parts, steps)
    return Score(_number(given, "the score"))


def value_of(given: Any) -> Any:
    """The reward alone of what a scorer returned, whatever that is."""
    return given.value if isinstance(given, Score) else given


def _number(given: Any, what: str) -> float:
    count = getattr(given, "numel", None)  # a tensor has one, an array a size
    count = count() if callable(count) else getattr(given, "size", 0)
    if hasattr(given, "item") and count == 1:
        given = given.item()  # an array of one number
    if isinstance(given, bool):
        return float(given)
    if not isinstance(given, Real | Decimal):
        raise ValueError(f"{what} is no number, but {_shown(given)}")
    try:
        number = float(given)
    except OverflowError:  # an integer of hundreds of digits
        number = 2 * MOST if cast("Any", given) > 0 else -2 * MOST
    if not isfinite(number):
        raise ValueError(f"{what} is {given}, which is not finite")
    if abs(number) > MOST:
        raise ValueError(
            f"{what} lies beyond {copysign(MOST, number):g}, which is the most that is learned from; divide it by "
            "what scores usually are"
        )
    return number


def _shown(given: Any) -> str:
    if given is None:
        return "None"
    if isinstance(given, Awaitable):
        if isinstance(given, Coroutine):
            given.close()  # or Python warns that nobody awaited it
        return "what an async function returns; make it a plain one, which may call asyncio.run itself"
    return f"{type(given).__name__} {text_of(given)[:60]}"


def call(scorer: Any, pairs: Sequence[tuple[Prompt, str]]) -> list[Score | Failed]:
    """Scores answers; one that fails takes none of the others with it.

    Args:
        scorer: a Scorer.
        pairs: prompts with their answers; several only for a scorer with `score_batch`.
    """
    if not hasattr(scorer, "score_batch"):
        return [_call_one(scorer, prompt, answer) for prompt, answer in pairs]
    try:
        given = list(scorer.score_batch(list(pairs)))
        if len(given) != len(pairs):
            raise ValueError(f"it gave {len(given)} scores for {len(pairs)} answers")
    except RAISED as error:
        if len(pairs) > 1:  # which of them it was
            return [found for pair in pairs for found in call(scorer, [pair])]
        return [failed(error)]
    return [_read(one) for one in given]


def batch_size_of(scorer: object) -> int:
    """How many answers a scorer takes at once; ValueError where its `batch_size` is no count."""
    if not hasattr(scorer, "score_batch"):
        return 1
    size: object = getattr(scorer, "batch_size", 1)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(
            f"the scorer's batch_size is {size!r}; it is a count of answers, at least 1"
        )
    return size


def _call_one(scorer: Scorer, prompt: Prompt, answer: str) -> Score | Failed:
    try:
        return read_score(scorer(prompt, answer))
    except RAISED as error:
        return failed(error)


def _read(given: object) -> Score | Failed:
    if isinstance(given, Exception):
        return failed(given)
    try:
        return read_score(given)
    except ValueError as error:
        return failed(error)


class Scoring:
    """The work of a scorer: pairs of prompt and answer become scores."""

    def __init__(self, scorer: Scorer) -> None:
        """`scorer`: one answer at a time, or several; ValueError where its `batch_size` is no count."""
        self._scorer = scorer
        self.batch_size = batch_size_of(scorer)

    def work(self, pieces: Sequence[tuple[Prompt, str]]) -> list[Score | Failed]:
        """The scores of answers."""
        return call(self._scorer, pieces)
