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


def sequence_target(
    reward: Tensor,
    discount: Tensor,
    valid: Tensor,
    value: Tensor,
    *,
    n_step: int,
    rescale: bool = False,
) -> Tensor:
    """G_t = r_t + discount_t G_t+1, n times, then the value: returns of up to n steps within sequences.

    Fewer where a step's successor is no step that led further: an episode's last observation, or the sequence's end.
    With `rescale` h(G), of values h^-1(value) (Kapturowski et al. 2019, section 2.3).

    Args:
        reward: [T, B].
        discount: [T, B], gamma, and 0 where the step terminated.
        valid: [T, B], whether a record is a step that led to the next record; false at the last one.
        value: [T, B], of the observations, by the target network.
        n_step: n, at least 1.
        rescale: whether values are of returns through `rescaled`, as the targets then are.

    Returns:
        [T, B]; where not valid the value itself.
    """
    assert reward.shape == discount.shape == valid.shape == value.shape
    assert n_step >= 1
    value = unscaled(value) if rescale else value
    found = value
    for _ in range(n_step):
        after = torch.cat([found[1:], value[-1:]])
        found = torch.where(valid, reward + discount * after, value)
    return rescaled(found) if rescale else found


def mixed_error(error: Tensor, valid: Tensor, *, eta: float = 0.9) -> Tensor:
    """Priority of a sequence: eta max_t |e_t| + (1 - eta) mean_t |e_t| (Kapturowski et al. 2019, section 2.3).

    Args:
        error: [T, B].
        valid: [T, B], whether a step counts; a sequence without any has 0.
        eta: the share of the greatest one.

    Returns:
        [B].
    """
    assert error.shape == valid.shape
    size = error.abs() * valid
    mean = size.sum(0) / valid.sum(0).clamp(min=1)
    return eta * size.amax(0) + (1 - eta) * mean


def rescaled(x: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x: large returns in smaller numbers (Pohlen et al. 2018)."""
    return x.sign() * ((x.abs() + 1).sqrt() - 1) + epsilon * x


def unscaled(y: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """The inverse of `rescaled`; arXiv 1805.11593, proposition A.2."""
    moved = y.abs() + 1 + epsilon
    root = (1 + 4 * epsilon * moved).sqrt()
    # (root - 1) / (2 epsilon), without the difference of two numbers near 1.
    return y.sign() * ((2 * moved / (root + 1)).square() - 1)
