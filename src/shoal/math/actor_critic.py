"""Losses of actors beside critics Q(s, a): pure functions of tensors [B] and [K, B]."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def soft_target(
    reward: Tensor,
    discount: Tensor,
    next_value: Tensor,
    next_log_prob: Tensor,
    temperature: Tensor | float,
) -> Tensor:
    """Target = r + discount * (min Q'(s', a') - temperature * log pi(a' | s')), a' drawn from the policy as it is.

    Haarnoja et al. 2018, arXiv 1812.05905, eq. 3 and 5; of n steps if `reward` and `discount` are. All are [B].
    """
    assert reward.shape == discount.shape == next_value.shape == next_log_prob.shape
    return reward + discount * (next_value - temperature * next_log_prob)


def critic_loss(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The mean over the batch of w * sum_k 0.5 (Q_k - target)^2.

    Args:
        values: of K critics [K, B].
        target: [B], without gradients.
        weight: of each transition [B].
    """
    assert values.shape[1:] == target.shape == weight.shape
    return 0.5 * (weight * (values - target).square()).mean(-1).sum(0)


def smoothed(action: Tensor, noise: Tensor, deviation: float, *, clip: float) -> Tensor:
    """Clip(a + clip(deviation * noise, -clip, clip), -1, 1): target policy smoothing (Fujimoto et al. 2018, eq. 14).

    `action` and standard normal `noise` are [B, D].
    """
    assert action.shape == noise.shape
    return (action + (deviation * noise).clamp(-clip, clip)).clamp(-1, 1)
