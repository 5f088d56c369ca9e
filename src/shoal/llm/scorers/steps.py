"""Process rewards: a number for each step of an answer, and from them one for the whole."""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING

from shoal.llm.scorers.score import Score
from shoal.llm.tasks.answers import without_end
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.llm.tasks.task import Prompt

    JudgeSteps = Callable[[Prompt, Sequence[str]], Sequence[float]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _last(values: Sequence[float]) -> float:
    return values[-1]


REDUCTIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "mean": _mean,
    "sum": sum,
    "prod": prod,
    "last": _last,
}
"""How the rewards of steps become one."""
MAX_STEPS = 1000


class StepRewards:
    """Judges each step of an answer: a line by default. All steps before it are known to the judge."""

    def __init__(
        self, judge: JudgeSteps, *, reduce: str = "min", split: str = r"\n+"
    ) -> None:
        r"""Takes a judge.

        Args:
            judge: a function of the prompt and the steps that returns a number for each step.
            reduce: `min` (a chain is as good as its weakest step), `mean`, `sum`, `prod` or `last`.
            split: regular expression between two steps; `\n\n+` for paragraphs.

        Raises:
            ConfigError: there is no such reduction, or the expression is none.
        """
        if reduce not in REDUCTIONS:
            raise ConfigError(
                f"reduce is one of {', '.join(REDUCTIONS)}, got {reduce!r}"
            )
        try:
            self._split = re.compile(split)
        except re.error as error:
            raise ConfigError(f"split={split!r}: {error}") from error
        self._judge, self._reduce = judge, REDUCTIONS[reduce]

    def __call__(self, prompt: Prompt, answer: str) -> Score:
        """The score of the whole with that of each step; 0 for an answer without steps.

        Raises:
            ValueError: the judge did not give a number for each step, or there are more than 1000.
        """
        steps = self.steps_of(answer)
        if not steps:
            return Score(0.0)
        if len(steps) > MAX_STEPS:
            raise ValueError(
                f"the answer has {len(steps)} steps, at most {MAX_STEPS} are judged"
            )
        values = [float(value) for value in self._judge(prompt, steps)]
        if len(values) != len(steps):
            raise ValueError(
                f"the judge gave {len(values)} numbers for {len(steps)} steps"
            )
        return Score(self._reduce(values), steps=tuple(values))

    def steps_of(self, answer: str) -> list[str]:
        """The steps of an answer, without those that are empty."""
        parts = (part.strip() for part in self._split.split(without_end(answer)))
        return [part for part in parts if part]
