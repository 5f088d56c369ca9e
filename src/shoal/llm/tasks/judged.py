"""A task whose answers are judged by functions of the user's own, several of them in a weighted sum."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from shoal.llm.scorers.functions import named_scorer, task_scorer
from shoal.llm.scorers.weighted import WeightedSum
from shoal.llm.tasks.game import is_game
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.llm.scorers.score import Score, Scorer
    from shoal.llm.tasks.task import Prompt, Task

OWN = "task"
"""What names the task's own scorer."""


class JudgedTask:
    """Another task's prompts and replies; `score` is a weighted sum of scorers, with each of them beside it."""

    def __init__(self, task: Task, scorers: Sequence[str]) -> None:
        """Nothing is judged yet.

        Args:
            task: asks, and replies where it has several turns.
            scorers: `package.module:function` of a prompt and an answer, or `task` for the task's own; each may end in
                `=WEIGHT`, which is 1 where it does not.

        Raises:
            ConfigError: no such function, a weight that is no number, or a game, which itself says what is earned.
        """
        if is_game(task):
            raise ConfigError(
                f"language.scorers: {task.name} is a game, which says itself what its players have earned; leave it out"
            )
        self._task = task
        self.name = task.name
        self.threshold: float | None = None
        """That of the task is of other rewards."""
        self.scorer = WeightedSum(_parts(task, scorers))

    def __getattr__(self, name: str) -> Any:
        """What else the task has: `reply`, `max_turns`, `levels`, `solution`, ..."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._task, name)

    def prompt(self, index: int) -> Prompt:
        """The task's prompt of this number."""
        return self._task.prompt(index)

    def score(self, prompt: Prompt, answer: str) -> Score:
        """The weighted sum; ValueError where a part failed, which it names."""
        return self.scorer(prompt, answer)


def _parts(task: Task, scorers: Sequence[str]) -> dict[str, tuple[Scorer, float]]:
    """Scorers and weights by the names that metrics have: a function's own, or with its module where two share it."""
    read = [_read(one) for one in scorers]
    short = [source.rpartition(":")[2] for source, _ in read]
    parts: dict[str, tuple[Scorer, float]] = {}
    for (source, weight), own in zip(read, short, strict=True):
        name = own if short.count(own) == 1 else source
        if name in parts:
            raise ConfigError(
                f"language.scorers names {source} twice; give it one weight"
            )
        made = task_scorer(task) if source == OWN else named_scorer(source)
        parts[name] = made(), weight
    return parts


def _read(text: str) -> tuple[str, float]:
    """`NAME` or `NAME=WEIGHT`."""
    source, given, weight = text.partition("=")
    if not given:
        return source, 1.0
    try:
        number = float(weight)
    except ValueError:
        number = float("nan")
    if not isfinite(number):
        raise ConfigError(
            f"language.scorers: {text!r} has no number as its weight; write {source}=0.5"
        )
    return source, number
