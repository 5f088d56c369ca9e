"""A permutation test: whether one sample's mean is above another's by more than chance would make it."""

from __future__ import annotations

from math import ceil, comb
from typing import TYPE_CHECKING

import numpy as np

from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.types import Floats

FINENESS = 10
"""How many of the permutations may be as extreme, at least, at the level that decides."""
AT_A_TIME = 1 << 18
"""Numbers that are shuffled at a time."""
SAME = 1e-9
"""Sums that differ by less, relatively, are of the same numbers in another order."""


def permutation_test(
    better: Floats, worse: Floats, *, level: float, rng: np.random.Generator
) -> float:
    """The one-sided p-value of mean(better) > mean(worse): p = (1 + #{sums as large}) / (1 + N).

    Where both samples come from one distribution, p <= x has at most the probability x, whatever the distribution
    (Phipson and Smyth 2010, arXiv 1603.05766). N is so large that FINENESS permutations make `level`; where p must come
    to lie above it, the rest is not drawn, and p so far is returned, which lies above it as well.

    Args:
        better: a sample [n].
        worse: another one [k].
        level: what the p-value is compared with.
        rng: shuffles.
    """
    both = np.concatenate([better, worse]).astype(np.float64)
    count, total = len(better), ceil(FINENESS / level)
    scale = float(np.abs(both).sum())
    observed = float(both[:count].sum()) - SAME * scale
    most = level * (1 + total) - 1
    extreme = drawn = 0
    while drawn < total and extreme <= most:
        size = min(total - drawn, max(1, AT_A_TIME // len(both)))
        shuffled = rng.permuted(np.tile(both, (size, 1)), axis=1)
        extreme += int((shuffled[:, :count].sum(1) >= observed).sum())
        drawn += size
    return (1 + extreme) / (1 + drawn)


def check_reachable(size: int, level: float, what: str) -> None:
    """ConfigError unless samples of `size` each can come to a p-value of `level`: there are (2 size over size) splits.

    `what` names the setting of the size.
    """
    if size >= 2 and comb(2 * size, size) * level >= 1:
        return
    there = comb(2 * size, size)
    least = next(n for n in range(2, 10_000) if comb(2 * n, n) * level >= 1)
    raise ConfigError(
        f"{what}={size} is too few to tell agents apart: the least p-value of two samples is 1 / {there:,}, and "
        f"{level:.2g} is needed for so many comparisons; set it to at least {least}"
    )
