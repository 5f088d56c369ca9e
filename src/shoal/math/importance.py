"""Importance weights: how much another policy would do of what was done. Pure functions over any leading axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def importance_ratio(log_prob: Tensor, behavior_log_prob: Tensor) -> Tensor:
    """pi(a|s) / mu(a|s) elementwise, from log-probabilities: pi would act, mu did; unbiased, of unbounded variance."""
    assert log_prob.shape == behavior_log_prob.shape
    return (log_prob - behavior_log_prob).exp()


def truncated(ratio: Tensor, most: float) -> Tensor:
    """min(ratio, most) elementwise: a bounded weight, which changes what is estimated where it bites.

    Ionides 2008 (truncated importance sampling); the rho and c of Espeholt et al. 2018, arXiv 1802.01561.
    `most=math.inf` leaves all as it is. ValueError unless it is positive.
    """
    if not most > 0:
        raise ValueError(f"a weight is cut to a number above 0, got {most!r}")
    return ratio if math.isinf(most) else ratio.clamp(max=most)


def within(ratio: Tensor, most: float, *, least: float | None = None) -> Tensor:
    """The ratio where least <= ratio <= most, 0 elsewhere: steps that are too far from mu teach nothing.

    Masked importance sampling, as IcePop does it for language models (Ling team 2025, arXiv 2510.18855). `least` is
    1 / most unless it is given; `most=math.inf` without it leaves all as it is. ValueError unless least <= 1 <= most.
    """
    if not most >= 1:
        raise ValueError(f"weights are kept within 1 / c and c >= 1, got c = {most!r}")
    least = 1 / most if least is None else least
    if not 0 <= least <= 1:
        raise ValueError(f"the least weight that is kept lies in 0 to 1, got {least!r}")
    kept = (ratio >= least) & (ratio <= most)
    return torch.where(kept, ratio, torch.zeros_like(ratio))
