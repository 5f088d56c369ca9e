"""A held-out scorer: it judges answers that are learned from, and nothing is learned from what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.llm.scorers.pool import Scored, ScorerPool
    from shoal.stream.groups.flight import Group
    from shoal.types import Floats

HELD_OUT = "held_out"
"""The info value of an answer that holds what it says."""
BLOCK_S = 0.5
"""Seconds that are waited for it at a time."""


class HeldOut:
    """Judges answers of each batch, all of them at once, before the batch is learned from.

    So it is asked for the same answers whatever the clock says, and a checkpoint holds nothing of it.
    """

    def __init__(
        self,
        scorers: ScorerPool,
        *,
        answers: int = 0,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Judges nothing yet.

        Args:
            scorers: of the scorer; with on_failure="drop" what it does not judge is left out.
            answers: of each group, the first ones; 0: all.
            tell: told of the first answer that it did not judge.
        """
        self.scorers, self.answers, self._tell = scorers, answers, tell
        self.lost = 0
        """Answers that it could not judge, so far."""

    def judge(
        self, batch: Sequence[Group], text_of: Callable[[Group, int], str]
    ) -> Floats:
        """What it says of the answers of a batch that have a reward, in their order: NaN where it says nothing.

        Raises:
            ScorerError: with on_failure="raise", it failed.
        """
        count = 0
        for group in batch:
            for drawn, _ in group.scored:
                if not self.answers or drawn.number < self.answers:
                    text = text_of(group, drawn.number)
                    self.scorers.submit(count, group.prompt, text)
                count += 1
        said = np.full(count, np.nan)
        while self.scorers.pending:
            for one in self.scorers.poll(BLOCK_S):
                said[one.key] = self._read(one)
        return said

    def close(self) -> None:
        """Ends its processes."""
        self.scorers.close()

    def _read(self, one: Scored) -> float:
        if one.reward is not None:
            return one.reward
        self.lost += 1
        if self.lost == 1 and self._tell is not None:
            self._tell(f"the held-out scorer left an answer out: {one.failure}")
        return np.nan
