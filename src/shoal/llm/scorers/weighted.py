"""A weighted sum of several scorers, each of which is reported by its name."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from shoal.llm.scorers.score import Score, batch_size_of, call, read_score
from shoal.llm.stage.work import Failed
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.llm.scorers.score import Scorer
    from shoal.llm.tasks.task import Prompt


class WeightedSum:
    """sum_i w_i r_i. Where one part fails, the whole has no score: a sum of the others would pay for its failure."""

    def __init__(self, parts: Mapping[str, tuple[Scorer, float]]) -> None:
        """`parts`: scorers and their weights by name; ConfigError where there is none, or a weight is no number."""
        if not parts:
            raise ConfigError("a weighted sum needs at least one scorer")
        for name, (_, weight) in parts.items():
            if not isfinite(weight):
                raise ConfigError(
                    f"the weight of scorer {name!r} must be finite, got {weight}"
                )
        self._parts = dict(parts)
        self.batch_size = max(batch_size_of(scorer) for scorer, _ in parts.values())

    def __call__(self, prompt: Prompt, answer: str) -> Score:
        """The sum, with the value of every part before its weight.

        Raises:
            ValueError: a part gave no number, or raised; the message names it.
        """
        [scored] = self.score_batch([(prompt, answer)])
        if isinstance(scored, Exception):
            raise scored
        return scored

    def score_batch(
        self, pairs: Sequence[tuple[Prompt, str]]
    ) -> list[Score | Exception]:
        """The sums; an exception for each answer for which a part failed."""
        by_part: dict[str, list[Score | Failed]] = {}
        for name, (scorer, _) in self._parts.items():
            by_part[name] = []
            size = batch_size_of(scorer)
            for start in range(0, len(pairs), size):
                by_part[name] += call(scorer, pairs[start : start + size])
        return [self._sum(by_part, number) for number in range(len(pairs))]

    def _sum(
        self, by_part: Mapping[str, list[Score | Failed]], number: int
    ) -> Score | Exception:
        total, values, steps = 0.0, dict[str, float](), ()
        for name, (_, weight) in self._parts.items():
            outcome = by_part[name][number]
            if isinstance(outcome, Failed):
                error = ValueError(f"scorer {name!r} failed: {outcome.text}")
                error.add_note(outcome.where)
                return error
            total += weight * outcome.value
            values[name] = outcome.value
            values |= {f"{name}/{part}": value for part, value in outcome.parts.items()}
            steps = steps or outcome.steps
        return read_score(Score(total, values, steps))
