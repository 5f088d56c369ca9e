"""Losses of policy-gradient methods: pure functions of tensors, over any leading axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from shoal.math.token_losses import clipped_surrogate

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def masked_mean(x: Tensor, valid: Tensor | None, *, axes: int | None = None) -> Tensor:
    """The mean of the valid elements over the last `axes` axes (all of them by default)."""
    dims = _last_dims(x, axes)
    if valid is None:
        return x.mean(dims)
    assert valid.shape == x.shape
    weight = valid.to(x.dtype)
    total = (x * weight).sum(dims)
    return total / weight.sum(dims).clamp(min=1)


def normalize_advantage(
    advantage: Tensor,
    valid: Tensor | None = None,
    *,
    axes: int | None = None,
) -> Tensor:
    """(A - mean) / (std + 1e-8) over the valid elements of the last `axes` axes, std with Bessel's correction."""
    dims = _last_dims(advantage, axes)
    if valid is None:
        weight = torch.ones_like(advantage)
    else:
        assert valid.shape == advantage.shape
        weight = valid.to(advantage.dtype)
    count = weight.sum(dims, keepdim=True)
    total = (advantage * weight).sum(dims, keepdim=True)
    centered = advantage - total / count.clamp(min=1)
    squares = (centered.square() * weight).sum(dims, keepdim=True)
    variance = squares / (count - 1).clamp(min=1)
    return centered / (variance.sqrt() + 1e-8)


def moments_of(x: Tensor, valid: Tensor) -> Tensor:
    """The number of valid elements, their mean and their sum of squared deviations, float64 [3]."""
    weight = valid.double()
    count = weight.sum()
    mean = (x.double() * weight).sum() / count.clamp(min=1)
    squares = ((x.double() - mean).square() * weight).sum()
    return torch.stack([count, mean, squares]).cpu()


def joined_moments(parts: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and deviation, with Bessel's correction, of what parts [n, 3] of `moments_of` are of together."""
    count, mean, squares = parts[:, 0], parts[:, 1], parts[:, 2]
    total = max(float(count.sum()), 1.0)
    whole = float((count * mean).sum() / total)
    spread = float((squares + count * np.square(mean - whole)).sum())
    return whole, math.sqrt(spread / max(total - 1, 1.0))


def standardized(x: Tensor, moments: tuple[float, float]) -> Tensor:
    """(x - mean) / (deviation + 1e-8)."""
    mean, deviation = moments
    return (x - mean) / (deviation + 1e-8)


def ppo_policy_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    clip_coef: float,
    weight: Tensor | None = None,
) -> Tensor:
    """The clipped surrogate, negated, elementwise (Schulman et al. 2017, arXiv 1707.06347, eq. 7).

    `weight` is pi_old(a|s) / pi_behavior(a|s), cut to some number, where another policy than the old one acted: the
    decoupled objective (Hilton et al. 2021, arXiv 2110.00641, eq. 4).
    """
    assert log_prob.shape == old_log_prob.shape == advantage.shape
    ratio = (log_prob - old_log_prob).exp()
    loss = clipped_surrogate(ratio, advantage, eps_low=clip_coef, eps_high=clip_coef)
    if weight is None:
        return loss
    assert weight.shape == loss.shape
    return loss * weight


def value_loss(
    value: Tensor,
    target: Tensor,
    old_value: Tensor | None = None,
    clip_coef: float = 0.0,
) -> Tensor:
    """0.5 (v - target)^2 elementwise; with `old_value`, the larger of it and the one clipped around the old value."""
    assert value.shape == target.shape
    loss = (value - target).square()
    if old_value is not None:
        assert old_value.shape == value.shape
        moved = (value - old_value).clamp(-clip_coef, clip_coef)
        clipped = old_value + moved
        loss = torch.maximum(loss, (clipped - target).square())
    return 0.5 * loss


def approximate_kl(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """(r - 1) - log r elementwise: an unbiased, positive estimate of KL(old, new) (Schulman 2020)."""
    assert log_prob.shape == old_log_prob.shape
    log_ratio = log_prob - old_log_prob
    return log_ratio.exp() - 1 - log_ratio


@torch.no_grad()
def ratio_statistics(
    log_prob: Tensor,
    old_log_prob: Tensor,
    clip_coef: float,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """How far the policy moved, as means: `approximate_kl`, and the share whose ratio left [1 - c, 1 + c]."""
    kl = masked_mean(approximate_kl(log_prob, old_log_prob), valid)
    moved = ((log_prob - old_log_prob).exp() - 1).abs()
    return kl, masked_mean((moved > clip_coef).float(), valid)


def policy_gradient_loss(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """-log pi(a|s) A elementwise (Williams 1992; Mnih et al. 2016, arXiv 1602.01783, section 4)."""
    assert log_prob.shape == advantage.shape
    return -log_prob * advantage.detach()


def _last_dims(x: Tensor, axes: int | None) -> tuple[int, ...]:
    """The last `axes` axes, counted from the end; all of them by default."""
    count = x.dim() if axes is None else axes
    return tuple(range(-count, 0))
