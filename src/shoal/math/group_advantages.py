"""Advantages of several answers to one prompt, from their rewards alone: pure functions of tensors [S].

S sequences; `group` [S], of integers, says which of them answer the same prompt, in any order and of any number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from shoal.math.losses import normalize_advantage
from shoal.math.token_losses import over_tokens

if TYPE_CHECKING:
    from torch import Tensor

Scale: TypeAlias = Literal["group", "batch", "none"]


def has_signal(reward: Tensor, group: Tensor) -> Tensor:
    """Whether rewards differ within the sequence's group, bool [S]; without a difference nothing is to be learned.

    Args:
        reward: [S].
        group: [S].
    """
    return _differ(reward, _number_groups(reward, group))


def group_advantage(
    reward: Tensor,
    group: Tensor,
    *,
    scale: Scale = "group",
    eps: float = 1e-4,
) -> Tensor:
    """A = (r - mean of the group) / (std + eps), [S]; exactly 0 in a group without signal.

    The deviation is the sample's (n - 1): of the group (Shao et al. 2024, arXiv 2402.03300, section 4.1.2), of all
    rewards of the batch (Liu et al. 2025, arXiv 2508.08221), or there is none (Liu et al. 2025, arXiv 2503.20783,
    section 3.2), as a group's deviation gives easy and hard prompts more weight than others.

    Args:
        reward: [S].
        group: [S].
        scale: whose deviation divides.
        eps: is added to the deviation.

    Raises:
        ValueError: no such scale.
    """
    place = _number_groups(reward, group)
    centered, count = _center(reward, place)
    if scale == "none":
        return centered
    if scale == "group":
        variance = _sum_groups(centered.square(), place) / (count - 1).clamp(min=1)
    elif scale == "batch":
        squares = (reward - reward.mean()).square().sum()
        variance = squares / max(1, len(reward) - 1)
    else:
        raise ValueError(f'scale is "group", "batch" or "none", got {scale!r}')
    return torch.where(centered == 0, 0.0, centered / (variance.sqrt() + eps))


def leave_one_out(reward: Tensor, group: Tensor) -> Tensor:
    """A = r - mean of the others' rewards in the group, [S]; exactly 0 in a group without signal, or of one.

    The baseline does not depend on the answer, so that the gradient stays unbiased (Kool et al. 2019; Ahmadian et al.
    2024, arXiv 2402.14740).

    Args:
        reward: [S].
        group: [S].
    """
    centered, count = _center(reward, _number_groups(reward, group))
    return centered * (count / (count - 1).clamp(min=1))


def advantage_of(
    kind: Literal["group", "batch", "centered", "leave_one_out"],
    reward: Tensor,
    group: Tensor,
) -> Tensor:
    """The advantage of each answer [S]: `leave_one_out`, or `group_advantage` with that scale ("centered": none).

    Args:
        kind: which.
        reward: [S].
        group: [S].
    """
    if kind == "leave_one_out":
        return leave_one_out(reward, group)
    return group_advantage(reward, group, scale="none" if kind == "centered" else kind)


def whitened_advantage(advantage: Tensor, mask: Tensor) -> Tensor:
    """(A - mean) / (std + 1e-8) over all sampled tokens of the batch, [S, L]; 0 off the mask, or if all are the same.

    Of rewards as such, of returns to go, or of what `group_advantage` without a scale gives: a global baseline, or one
    of the group and a global scale (Hu et al. 2025, arXiv 2501.03262).

    Args:
        advantage: [S] or [S, L].
        mask: tokens that the policy sampled, bool [S, L].
    """
    advantage = over_tokens(advantage, mask)
    zero = torch.zeros_like(advantage)
    low = advantage.masked_fill(~mask, torch.inf).amin()
    high = advantage.masked_fill(~mask, -torch.inf).amax()
    white = normalize_advantage(torch.where(mask, advantage, zero), mask)
    return torch.where(mask & (low != high), white, zero)


def _number_groups(reward: Tensor, group: Tensor) -> Tensor:
    """The groups as numbers from 0 on, [S]; without asking the device how many there are."""
    assert reward.dim() == 1
    assert group.shape == reward.shape
    order = group.argsort(stable=True)
    ordered = group.gather(0, order)
    new = torch.ones_like(order)
    new[1:] = (ordered[1:] != ordered[:-1]).long()
    return torch.empty_like(order).scatter(0, order, new.cumsum(0) - 1)


def _sum_groups(x: Tensor, place: Tensor) -> Tensor:
    """The sum over the sequence's group, [S]."""
    return torch.zeros_like(x).index_add(0, place, x).gather(0, place)


def _differ(reward: Tensor, place: Tensor) -> Tensor:
    """Whether not all rewards of the sequence's group are the same, bool [S]."""
    low = torch.full_like(reward, torch.inf).scatter_reduce(0, place, reward, "amin")
    high = torch.full_like(reward, -torch.inf).scatter_reduce(0, place, reward, "amax")
    return (low != high).gather(0, place)


def _center(reward: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards less the mean of their group, and the size of the group: both [S]."""
    count = _sum_groups(torch.ones_like(reward), place)
    mean = _sum_groups(reward, place) / count
    # The mean of equal numbers may be rounded, and a tiny difference be scaled up.
    centered = torch.where(_differ(reward, place), reward - mean, 0.0)
    return centered, count
