"""Rotary positions: queries and keys are turned by angles that grow with their position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.llm.architecture import Architecture


def rotations(position: Tensor, a: Architecture) -> tuple[Tensor, Tensor]:
    """By which queries and keys at `position` [N] are turned, [N, 1, head_dim] each.

    Cosines; and sines, of which those of the first half have a minus.
    """
    exponents = torch.arange(0, a.head_dim, 2, device=position.device) / a.head_dim
    angle = position[:, None].float() / a.rope_theta ** exponents.float()
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1)[:, None], torch.cat([-sin, sin], -1)[:, None]


def rotated(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Queries or keys x [N, heads, head_dim], turned; halves are pairs, as transformers has them."""
    cos, sin = angles
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin
