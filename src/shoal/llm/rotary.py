"""Rotary positions: queries and keys are turned by angles that grow with their position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.llm.architecture import Architecture


def rotations(position: Tensor, a: Architecture) -> tuple[Tensor, Tensor]:
    """Cosines and sines by which queries and keys at `position` [N] are turned, [N, 1, head_dim] each."""
    exponents = torch.arange(0, a.head_dim, 2, device=position.device) / a.head_dim
    angle = position[:, None].float() / a.rope_theta ** exponents.float()
    angle = torch.cat([angle, angle], dim=-1)[:, None]
    return angle.cos(), angle.sin()


def rotated(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Queries or keys x [N, heads, head_dim], turned; halves are pairs, as transformers has them."""
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
