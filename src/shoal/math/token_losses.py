"""Losses of tokens: how an advantage and a ratio become what is minimized. Pure functions, elementwise over [S, L]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor


def over_tokens(advantage: Tensor, mask: Tensor) -> Tensor:
    """The advantage of each token [S, L]: its sequence's if it is [S], else as it is."""
    assert mask.dim() == 2
    if advantage.dim() == 1:
        assert advantage.shape == mask.shape[:1]
        return advantage[:, None].expand(mask.shape)
    assert advantage.shape == mask.shape
    return advantage


def clipped_surrogate(
    ratio: Tensor,
    advantage: Tensor,
    *,
    eps_low: float,
    eps_high: float,
    delta: float | None = None,
) -> Tensor:
    """-min(r A, clip(r, 1 - eps_low, 1 + eps_high) A), elementwise: no gain from moving further than the clip.

    Schulman et al. 2017, arXiv 1707.06347, eq. 7; with a higher upper bound (Yu et al. 2025, arXiv 2503.14476, eq. 10)
    unlikely tokens may become likely. Where A < 0, r has no upper bound there: `delta` cuts it, so that a token which
    the old policy hardly ever chose cannot take over the batch (dual clip, Ye et al. 2020, arXiv 1912.09729).

    Args:
        ratio: of any shape.
        advantage: of the same.
        eps_low: how far below 1 a ratio counts.
        eps_high: how far above 1 it does.
        delta: the largest ratio where A < 0; None leaves it open.

    Raises:
        ValueError: `delta` lies below 1 + eps_high.
    """
    assert ratio.shape == advantage.shape
    clipped = ratio.clamp(1 - eps_low, 1 + eps_high)
    if delta is not None:
        if delta < 1 + eps_high:
            raise ValueError(
                f"delta cuts ratios above 1 + eps_high = {1 + eps_high}, got {delta!r}"
            )
        ratio = ratio.clamp(max=delta)
    return -torch.minimum(advantage * ratio, advantage * clipped)


def soft_gated_surrogate(
    ratio: Tensor,
    advantage: Tensor,
    *,
    steepness: float = 1.0,
    steepness_below: float = 1.05,
) -> Tensor:
    """-4 / t sigmoid(t (r - 1)) A, elementwise: a clip without an edge, of slope 1 at r = 1.

    Gao et al. 2025, arXiv 2511.20347.

    Args:
        ratio: of any shape.
        advantage: of the same.
        steepness: t where A > 0: greater keeps the policy closer.
        steepness_below: t elsewhere.
    """
    assert ratio.shape == advantage.shape
    up = torch.full_like(ratio, steepness)
    steep = torch.where(advantage > 0, up, torch.full_like(ratio, steepness_below))
    return -4 / steep * torch.sigmoid(steep * (ratio - 1)) * advantage


def weighted_policy_gradient(
    logprob: Tensor, advantage: Tensor, weight: Tensor, mask: Tensor
) -> Tensor:
    """-sg[w] A log pi(token), [S, L]; 0 off the mask.

    With w = 1 the plain policy gradient (Williams 1992). With the importance weight it is unbiased for samples of
    another policy. With min(r, most) every token keeps its gradient, where `clipped_surrogate` drops those of ratios
    outside (Chen et al. 2025, arXiv 2506.13585, eq. 4-5).

    Args:
        logprob: of the policy that learns [S, L].
        advantage: [S] or [S, L].
        weight: [S, L].
        mask: tokens that the policy sampled, bool [S, L].
    """
    assert logprob.shape == weight.shape == mask.shape
    scale = (weight * over_tokens(advantage, mask)).detach()
    zero = torch.zeros_like(logprob)
    return -torch.where(mask, scale, zero) * torch.where(mask, logprob, zero)


def bounded_loss(
    surrogate: Literal["clip", "weight", "none"],
    logprob: Tensor,
    ratio: Tensor,
    advantage: Tensor,
    mask: Tensor,
    bounds: tuple[float, float],
) -> Tensor:
    """The policy's loss of each token [S, L], however the change of its probability is bounded; 0 off the mask.

    "clip": `clipped_surrogate`. "weight": `weighted_policy_gradient` with the clipped ratio; "none": with the ratio.

    Args:
        surrogate: how.
        logprob: of the policy that learns [S, L].
        ratio: to the one that it is compared with [S, L].
        advantage: [S, L].
        mask: bool [S, L].
        bounds: between which a ratio counts, such as 0.8 and 1.2.
    """
    low, high = bounds
    if surrogate == "clip":
        loss = clipped_surrogate(ratio, advantage, eps_low=1 - low, eps_high=high - 1)
        return torch.where(mask, loss, torch.zeros_like(loss))
    moved = ratio.detach()
    if surrogate == "weight":
        moved = moved.clamp(low, high)
    return weighted_policy_gradient(logprob, advantage, moved, mask)
