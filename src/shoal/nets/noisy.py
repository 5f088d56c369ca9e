"""Noisy layers: dense layers whose weights carry learned noise, by which a Q-network explores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np

SIGMA = 0.5


class NoisyLinear(nn.Module):
    """y = (w + s_w * e_w) x + b + s_b * e_b with factorized noise (Fortunato et al. 2018, arXiv 1706.10295, eq. 9).

    The noise e_w = f(e_out) f(e_in)^T, e_b = f(e_out), f(x) = sign(x) sqrt(|x|), stays as it is until `draw`; it is a
    buffer, so that those who act see the noise of the version that was published.
    """

    noise_in: Tensor
    noise_out: Tensor

    def __init__(self, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
        """Weights uniform in +-1 / sqrt(fan_in), deviations 0.5 / sqrt(fan_in)."""
        super().__init__()
        bound = 1 / math.sqrt(fan_in)
        self.weight = nn.Parameter(torch.empty(fan_out, fan_in))
        self.bias = nn.Parameter(torch.empty(fan_out))
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
        nn.init.uniform_(self.bias, -bound, bound, generator=generator)
        sigma = SIGMA * bound
        self.weight_sigma = nn.Parameter(torch.full((fan_out, fan_in), sigma))
        self.bias_sigma = nn.Parameter(torch.full((fan_out,), sigma))
        self.register_buffer("noise_in", torch.zeros(fan_in))
        self.register_buffer("noise_out", torch.zeros(fan_out))

    def draw(self, rng: np.random.Generator) -> None:
        """New noise."""
        for noise in (self.noise_in, self.noise_out):
            x = torch.from_numpy(rng.standard_normal(len(noise)))
            noise.copy_(x.sign() * x.abs().sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """[..., fan_in] -> [..., fan_out], with the noise."""
        weight = self.weight + self.weight_sigma * self.noise_out.outer(self.noise_in)
        bias = self.bias + self.bias_sigma * self.noise_out
        return nn.functional.linear(x, weight, bias)

    def without_noise(self, x: Tensor) -> Tensor:
        """[..., fan_in] -> [..., fan_out], by the mean weights."""
        return nn.functional.linear(x, self.weight, self.bias)


def draw_noise(rng: np.random.Generator, *modules: nn.Module) -> None:
    """New noise in all noisy layers of modules; nothing where they have none."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, NoisyLinear):
                layer.draw(rng)
