"""Losses of actors beside critics Q(s, a): pure functions of tensors [B] and [K, B]."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def soft_value(value: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """V(s) = min Q(s, a) - temperature * log pi(a | s), a drawn from the policy as it is now: all [B].

    Haarnoja et al. 2018, arXiv 1812.05905, eq. 3.
    """
    assert value.shape == log_prob.shape
    return value - temperature * log_prob


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
