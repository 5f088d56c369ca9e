"""Observation normalisation as a layer of the policy: frozen within a version, merged after the update."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLIP = 10.0


class Normaliser(nn.Module):
    """(x - mean) / sqrt(var + 1e-8), clipped to +-10, with statistics over all observations merged so far.

    The statistics are float64 and merged in row order (Chan et al. 1979), so they do not depend on threads.
    """

    mean: Tensor
    inv_std: Tensor
    count: Tensor
    total_mean: Tensor
    total_m2: Tensor

    def __init__(self, size: int) -> None:
        """`size`: numbers in one observation."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("inv_std", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total_mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("total_m2", torch.zeros(size, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises [..., size]."""
        return ((x - self.mean) * self.inv_std).clamp(-CLIP, CLIP)

    @torch.no_grad()
    def merge(self, x: Tensor) -> None:
        """Adds observations [N, size] to the statistics; the next version uses them."""
        batch = x.reshape(-1, self.mean.shape[0]).double()
        if not len(batch):
            return
        mean, number = batch.mean(0), float(len(batch))
        delta, count = mean - self.total_mean, float(self.count) + number
        self.total_m2 += (batch - mean).square().sum(0) + delta.square() * (float(self.count) * number / count)
        self.total_mean += delta * (number / count)
        self.count.fill_(count)
        self.mean.copy_(self.total_mean)
        self.inv_std.copy_((self.total_m2 / count + 1e-8).rsqrt())
