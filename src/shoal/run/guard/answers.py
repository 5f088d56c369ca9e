"""Rules on answers of language models: lengths that explode, rewards that rise while an evaluation falls."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from shoal.run.guard.rules import Stateless, Windowed
from shoal.run.guard.seen import Finding

if TYPE_CHECKING:
    from shoal.run.guard.seen import Seen

ANSWERS = "groups/truncated"
"""A metric that streams of answers alone have."""
LONGER = 3.0
"""Times that answers may become as long as they were within the last checks."""
EVALUATION = "eval/return"
IN_A_ROW = 3
"""Evaluations, one worse than the other, while rewards rise."""


class Length(Windowed):
    """Answers do not become many times as long at once."""

    name = "length"
    reads = (ANSWERS,)

    def look(self, seen: Seen) -> Finding | None:
        """Compares the mean length of the last answers."""
        value = seen.mean_length
        if seen.number(*self.reads) is None or math.isnan(value):
            return None
        found = self.compare(value) if self.recent.full else None
        if found is None:
            self.recent.add(value)
        return found

    def compare(self, value: float) -> Finding | None:
        """Compares with the median of the last checks."""
        before = self.recent.median
        if value <= LONGER * before:
            return None
        return Finding(f"answers grew from {before:.3g} tokens to {value:.3g}", "halve")


class Hacking(Stateless):
    """Rewards do not rise while what an evaluation beside training says falls."""

    name = "hacking"
    reads = (ANSWERS,)

    def __init__(self) -> None:
        """Nothing was evaluated."""
        self.pairs: list[list[float]] = []
        """Evaluation and mean reward then, of the last evaluations."""

    def look(self, seen: Seen) -> Finding | None:
        """Compares at each evaluation."""
        if seen.number(*self.reads) is None or math.isnan(seen.mean_return):
            return None
        greedy = seen.number(EVALUATION)
        if greedy is None or (self.pairs and self.pairs[-1][0] == greedy):
            return None
        self.pairs = [*self.pairs[-IN_A_ROW:], [greedy, seen.mean_return]]
        if len(self.pairs) <= IN_A_ROW:
            return None
        pairs = list(zip(self.pairs, self.pairs[1:], strict=False))
        if not all(
            after[0] < before[0] and after[1] > before[1] for before, after in pairs
        ):
            return None
        (held, reward), (held_now, reward_now) = self.pairs[0], self.pairs[-1]
        said = (
            f"rewards rose from {reward:.3g} to {reward_now:.3g} while the evaluation fell from {held:.3g} to "
            f"{held_now:.3g}"
        )
        self.pairs = []
        return Finding(said, "halve")

    def forget(self) -> None:
        """Begins to compare anew."""
        self.pairs = []

    def state(self) -> Any:
        """All that `restore` needs."""
        return self.pairs

    def restore(self, saved: Any) -> None:
        """Continues from `saved`."""
        self.pairs = [[float(x) for x in pair] for pair in saved]
