"""How far apart the rewards lie that a learner has learned from: a first success is no failure of its values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

SPREAD, GREW = "rewards/spread", "rewards/grew"
"""Numbers of a check: the largest reward of a step so far less the smallest, as they are learned from; whether that
grew at once since the check before."""
RARE = 0.1
"""Share of a batch's steps that may lie beyond all before: where more do, the rewards themselves have changed."""
GROWN = 2.0
"""Times that the spread becomes as large where it grew at once."""


class Reach:
    """The smallest and the largest reward so far, but for those that most steps have from one batch to the next.

    An agent that reaches its goal for the first time finds a reward that no step before had. Its values are wrong by
    all of it then, and their loss is as large as it has never been. Where a reward's unit is changed, nearly every
    step has such a reward; what is learned from that is not looked for here.
    """

    def __init__(self) -> None:
        """No step was seen."""
        self.low, self.high = math.nan, math.nan
        self.grew = False
        """Whether the spread grew at once since `numbers` was called last."""

    def note(self, batch: Any) -> None:
        """Takes in the rewards of a batch, where it has some: `Steps` [T, B] or `Transitions` [B]."""
        rewards = getattr(batch, "reward", None)
        if not isinstance(rewards, torch.Tensor) or not rewards.numel():
            return
        seen = rewards.detach().cpu().numpy()
        low, high = float(seen.min()), float(seen.max())
        if not math.isfinite(low + high):
            return
        if math.isnan(self.low):
            self.low, self.high = low, high
        elif low < self.low or high > self.high:
            beyond = (seen < self.low) | (seen > self.high)
            if np.count_nonzero(beyond) <= RARE * seen.size:
                self._extend(min(low, self.low), max(high, self.high))

    def numbers(self) -> dict[str, float]:
        """What a check knows of it; nothing before there was a reward."""
        if math.isnan(self.low):
            return {}
        grew, self.grew = self.grew, False
        return {SPREAD: self.high - self.low, GREW: float(grew)}

    def state(self) -> list[float]:
        """All that `restore` needs."""
        return [self.low, self.high, float(self.grew)]

    def restore(self, saved: Sequence[float]) -> None:
        """Continues from `saved`; checkpoints of earlier versions have nothing of it."""
        low, high, grew = saved or (math.nan, math.nan, 0.0)
        self.low, self.high, self.grew = float(low), float(high), bool(grew)

    def _extend(self, low: float, high: float) -> None:
        self.grew |= high - low > GROWN * (self.high - self.low)
        self.low, self.high = low, high
