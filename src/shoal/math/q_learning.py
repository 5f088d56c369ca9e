"""Q-learning: targets and losses, pure functions of tensors [B] and [B, n]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def best_action(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """argmax_a Q(s, a) [B], among the options that `mask` [B, n] leaves."""
    if mask is not None:
        assert mask.shape == values.shape
        values = values.masked_fill(~mask, -torch.inf)
    return values.argmax(-1)


def q_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """Target = r + discount * Q'(s', a'), of n steps if `reward` and `discount` are (Mnih et al. 2015).

    Where the network that learns chose a', it is double Q-learning (van Hasselt et al. 2016, arXiv 1509.06461, eq. 4).

    Args:
        reward: [B], the discounted sum of n rewards.
        discount: [B], gamma^n, and 0 where the episode terminated: a truncated one goes on.
        next_value: [B], or quantiles of the return [B, N], by the target network.

    Returns:
        As `next_value`.
    """
    assert reward.shape == discount.shape == next_value.shape[:1]
    if next_value.dim() == 2:
        return reward[:, None] + discount[:, None] * next_value
    return reward + discount * next_value


def huber(error: Tensor) -> Tensor:
    """0.5 x^2 up to |x| = 1 and |x| - 0.5 beyond, elementwise (Huber 1964): its slope is clipped to +-1."""
    slope = error.clamp(-1, 1)
    return slope * (error - 0.5 * slope)


def quantile_huber(quantiles: Tensor, target: Tensor) -> Tensor:
    """Mean over j, summed over i, of |tau_i - [u_ij < 0]| h(u_ij), u_ij = target_j - quantile_i, h Huber's loss.

    Dabney et al. 2018, arXiv 1710.10044, eq. 10, with tau_i = (i + 0.5) / N.

    Args:
        quantiles: of the returns as they are predicted [B, N].
        target: samples or quantiles of what they should be [B, M], without gradients.

    Returns:
        [B].
    """
    count = quantiles.shape[-1]
    tau = (torch.arange(count, device=quantiles.device) + 0.5) / count
    error = target[:, None, :] - quantiles[:, :, None]
    asymmetry = (tau[:, None] - (error.detach() < 0).to(tau.dtype)).abs()
    return (asymmetry * huber(error)).mean(-1).sum(-1)
