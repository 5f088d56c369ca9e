"""A reader of one of several memories that are drawn from as one: it says what its memory's steps weigh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.memory.batches import part_of
from shoal.memory.reader import Reader

if TYPE_CHECKING:
    from shoal.types import Transitions


class ShardReader(Reader):
    """Draws as many transitions as fall to its memory, up to a batch."""

    _part: Transitions | None = None
    """The last one that was drawn: making its views again takes longer than drawing."""

    @property
    def mass(self) -> tuple[float, int]:
        """What the steps that can be sampled weigh together, and how many they are.

        A step weighs what its chance is in proportion to: 1, or with priorities its p^alpha.
        """
        return self._native.mass

    @property
    def least_chance(self) -> float:
        """Of the last draw: the least chance in this memory, whose weight is 1; 1 without priorities."""
        return 1.0 if self.prioritized is None else self._native.least_chance

    def draw(self, count: int, beta: float | None) -> Transitions:
        """The first `count` transitions of the batch, drawn anew; with `beta` as the weights' exponent.

        Raises:
            RuntimeError: no step can be sampled.
        """
        if self.prioritized is None:
            found = self._native.sample(count)
        else:
            beta = self.prioritized.beta if beta is None else beta
            found = self._native.sample_prioritized(self.prioritized.alpha, beta, count)
        if not found:
            raise RuntimeError(self._why_not())
        if self._part is None or len(self._part.key) != count:
            self._part = part_of(self.batch, slice(count))
        return self._part
