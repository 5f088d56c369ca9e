"""Q-learning: targets and losses, pure functions of tensors [B] and [B, n]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def q_target(
    reward: Tensor,
    discount: Tensor,
    next_values: Tensor,
    *,
    choosing: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Target = r + discount * Q'(s', argmax_a Q(s', a)), of n steps if `reward` and `discount` are.

    Mnih et al. 2015; with `choosing` double Q-learning (van Hasselt et al. 2016, arXiv 1509.06461, eq. 4).

    Args:
        reward: [B], the discounted sum of n rewards.
        discount: [B], gamma^n, and 0 where the episode terminated: a truncated one goes on.
        next_values: Q' [B, n], of the target network.
        choosing: Q [B, n], of the network that learns; without it Q' chooses.
        mask: [B, n], the options there; all of them by default.

    Returns:
        [B].
    """
    assert reward.shape == discount.shape == next_values.shape[:-1]
    by = next_values if choosing is None else choosing
    assert by.shape == next_values.shape
    if mask is not None:
        by = by.masked_fill(~mask, -torch.inf)
    best = by.argmax(-1, keepdim=True)
    return reward + discount * next_values.gather(-1, best).squeeze(-1)


def huber(error: Tensor) -> Tensor:
    """0.5 x^2 up to |x| = 1 and |x| - 0.5 beyond, elementwise (Huber 1964): its slope is clipped to +-1."""
    slope = error.clamp(-1, 1)
    return slope * (error - 0.5 * slope)
