"""Statistics over seeds: the interquartile mean and its bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shoal.types import Floats

RESAMPLES = 2000
PERCENTILES = (2.5, 97.5)
"""Of the resampled means: the ends of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Band:
    """An interquartile mean over the grid and its 95 % interval, each [grid]."""

    middle: Floats
    low: Floats
    high: Floats


def iqm(scores: Floats) -> Floats:
    """Interquartile mean over the first axis: the mean without the lowest and the highest quarter.

    A quarter is rounded down to whole runs, as in `scipy.stats.trim_mean(scores, 0.25)`, which rliable uses.

    Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice", arXiv 2108.13264.
    """
    cut = len(scores) // 4
    ordered = np.sort(scores, axis=0)
    return ordered[cut : len(scores) - cut].mean(axis=0)


def bootstrap(
    scores: Floats,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> tuple[Floats, Floats]:
    """The 95 % stratified bootstrap interval of the interquartile mean (Agarwal et al. 2021).

    Args:
        scores: [strata, runs, ...]; runs are drawn anew within each stratum (an environment), never across.
        rng: draws.
        resamples: how many samples the percentiles are of.
    """
    strata, runs = scores.shape[:2]
    rows = np.arange(strata)[:, None]
    means: list[Floats] = []
    for _ in range(resamples):
        columns = rng.integers(runs, size=(strata, runs))
        drawn = scores[rows, columns]
        pooled = drawn.reshape(strata * runs, *scores.shape[2:])
        means.append(iqm(pooled))
    low, high = np.percentile(np.stack(means), PERCENTILES, axis=0)
    return low, high


def band(returns: Floats, rng: np.random.Generator) -> Band:
    """The band of returns [runs, grid]; one environment is one stratum."""
    low, high = bootstrap(returns[None], rng)
    return Band(iqm(returns), low, high)
