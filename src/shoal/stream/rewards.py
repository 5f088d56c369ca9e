"""Reward normalization: rewards divided by the running standard deviation of what they add up to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.learn.curiosity import Bonuses
    from shoal.learn.ranks import Ranks
    from shoal.memory.slab import Slab

CLIP = 10.0
EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class Rewards:
    """What becomes of rewards before they are learned from."""

    scale: float = 1.0
    """They are multiplied by this."""
    gamma: float | None = None
    """They are divided by the standard deviation of returns discounted by this; None: they are not."""
    bonuses: Bonuses | None = None
    """What is added for observations that were not seen often."""


class RewardNormalizer:
    """reward / sqrt(var + 1e-8), clipped to +-10; var is the variance of all discounted returns so far.

    The return of a step is R_t = r_t + gamma R_t-1, from 0 at each episode's first step. A rollout's own returns are
    merged, in float64, before its rewards are divided, all by the same number. As `NormalizeReward` of Gymnasium and
    `VecNormalize` of Stable-Baselines3, which divide each step by what is known up to there.
    """

    def __init__(
        self, gamma: float, num_rows: int, *, ranks: Ranks | None = None
    ) -> None:
        """Has seen nothing.

        Args:
            gamma: the discount of the returns.
            num_rows: of this process.
            ranks: the processes whose returns are merged, where there are several.
        """
        self.gamma, self._ranks = gamma, ranks
        self.count, self.mean, self.m2 = 0, 0.0, 0.0
        self.returns = np.zeros(num_rows)

    def normalize(self, slab: Slab) -> None:
        """Merges the returns of a rollout's valid steps and normalizes its rewards [T, B] in place."""
        returns = np.empty(slab.reward.shape)
        for t, reward in enumerate(slab.reward):
            before = np.where(slab.start[t], 0.0, self.gamma * self.returns)
            self.returns = np.where(slab.valid[t], before + reward, self.returns)
            returns[t] = self.returns
        valid = slab.valid
        if self._ranks is not None:
            returns, valid = self._ranks.columns(returns), self._ranks.columns(valid)
        self._merge(returns[valid])
        deviation = np.sqrt(self.m2 / max(self.count, 1) + EPSILON)
        slab.reward /= np.float32(deviation)
        np.clip(slab.reward, -CLIP, CLIP, out=slab.reward)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {
            "count": self.count,
            "mean": self.mean,
            "m2": self.m2,
            "returns": self.returns,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continues from `saved`."""
        self.count, self.mean, self.m2 = saved["count"], saved["mean"], saved["m2"]
        self.returns = np.array(saved["returns"])

    def _merge(self, x: NDArray[np.float64]) -> None:
        """Adds numbers to the mean and the sum of squared deviations (Chan et al. 1979)."""
        if not len(x):
            return
        before, self.count = self.count, self.count + len(x)
        mean = float(x.mean())
        delta = mean - self.mean
        own = float(np.square(x - mean).sum())
        self.m2 += own + delta * delta * before * len(x) / self.count
        self.mean += delta * len(x) / self.count
