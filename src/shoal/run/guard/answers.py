"""Rules on answers of language models: lengths that explode, rewards that rise while an evaluation falls."""

from __future__ import annotations

import math
from itertools import pairwise
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
"""Checks at which answers are long; evaluations, one worse than the other, while rewards rise."""
BEFORE, KEPT = 5, 16
"""Evaluations that there must be before them, and all that are kept."""
SURE = 3.0
"""Times the usual difference of two evaluations in a row that they must have fallen, and rewards risen."""


class Length(Windowed):
    """Answers do not become many times as long at once."""

    name = "length"
    reads = (ANSWERS,)

    def __init__(self) -> None:
        """Nothing was seen."""
        super().__init__()
        self._long = 0
        """Checks in a row at which answers were long: to one batch of prompts they may be."""

    def look(self, seen: Seen) -> Finding | None:
        """Compares the mean length of the last answers."""
        value = seen.mean_length
        if seen.number(*self.reads) is None or math.isnan(value):
            return None
        found = self.compare(value) if self.recent.full else None
        if found is None:
            self.recent.add(value)
            self._long = 0
            return None
        self._long += 1
        return found if self._long >= IN_A_ROW else None

    def forget(self) -> None:
        """Begins to compare anew."""
        super().forget()
        self._long = 0

    def state(self) -> Any:
        """All that `restore` needs."""
        return {"recent": super().state(), "long": self._long}

    def restore(self, saved: Any) -> None:
        """Continues from `saved`; earlier versions kept the lengths alone."""
        table = saved if isinstance(saved, dict) else {"recent": saved, "long": 0}
        super().restore(table["recent"])
        self._long = int(table["long"])

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
        self.pairs = [*self.pairs[1 - KEPT :], [greedy, seen.mean_return]]
        if len(self.pairs) < BEFORE + IN_A_ROW:
            return None
        last = self.pairs[-1 - IN_A_ROW :]
        pairs = pairwise(last)
        if not all(now[0] < then[0] and now[1] > then[1] for then, now in pairs):
            return None
        (held, reward), (held_now, reward_now) = last[0], last[-1]
        if held - held_now <= self._chance(0) or reward_now - reward <= self._chance(1):
            return None
        said = (
            f"rewards rose from {reward:.3g} to {reward_now:.3g} while the evaluation fell from {held:.3g} to "
            f"{held_now:.3g}"
        )
        self.pairs = []
        return Finding(said, "halve")

    def _chance(self, column: int) -> float:
        """How much two evaluations, or rewards, may differ by chance: by what those before did from one to the next."""
        before = [pair[column] for pair in self.pairs[:-IN_A_ROW]]
        steps = [abs(now - then) for then, now in pairwise(before)]
        return SURE * sum(steps) / len(steps)

    def forget(self) -> None:
        """Begins to compare anew."""
        self.pairs = []

    def state(self) -> Any:
        """All that `restore` needs."""
        return self.pairs

    def restore(self, saved: Any) -> None:
        """Continues from `saved`."""
        self.pairs = [[float(x) for x in pair] for pair in saved]
