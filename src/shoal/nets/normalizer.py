"""Observation normalization as a layer of the policy: frozen within a version, merged after the update."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shoal import _native

CLIP = 10.0
PIXEL_CLIP = 5.0
MOST_IMAGES = 251
"""Images of one rollout that statistics are made of."""


def merge_moments(
    layer: Normalizer | PixelNormalizer,
    mean: Tensor,
    m2: Tensor,
    number: float,
) -> None:
    """Adds a batch's mean and sum of squared deviations to a layer's (Chan et al. 1979)."""
    before = float(layer.count)
    count = before + number
    delta = mean - layer.total_mean
    layer.total_m2 += m2 + delta.square() * (before * number / count)
    layer.total_mean += delta * (number / count)
    layer.count.fill_(count)
    layer.mean.copy_(layer.total_mean)


class Normalizer(nn.Module):
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
        self.clip = CLIP
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("inv_std", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total_mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("total_m2", torch.zeros(size, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes [..., size]."""
        return ((x - self.mean) * self.inv_std).clamp(-self.clip, self.clip)

    @torch.no_grad()
    def merge(self, x: Tensor) -> None:
        """Adds observations [N, size] to the statistics; the next version uses them."""
        batch = x.reshape(-1, self.mean.shape[0]).double()
        if not len(batch):
            return
        mean = batch.mean(0)
        m2 = (batch - mean).square().sum(0)
        merge_moments(self, mean, m2, float(len(batch)))
        self.inv_std.copy_((self.total_m2 / self.count + 1e-8).rsqrt())


def convert_pixels(
    pixels: Tensor,
    normalizer: PixelNormalizer | None,
    *,
    channels_last: bool,
    dtype: torch.dtype,
) -> Tensor:
    """uint8 [N, H, W, C] or [N, C, H, W] -> [N, H, W, C], normalized or as they are, in one pass on the CPU.

    With the bits of torch. `dtype`: float32 or bfloat16.
    """
    given = pixels.contiguous()
    images, *sides = given.shape
    if not channels_last:
        sides = [*sides[1:], sides[0]]
    out = torch.empty(images, *sides, dtype=dtype)
    half = dtype is torch.bfloat16
    _native.convert_pixels(
        given.numpy(),
        None if normalizer is None else normalizer.mean.numpy(),
        None if normalizer is None else normalizer.inv_std.numpy(),
        PIXEL_CLIP,
        channels_last,
        (out.view(torch.uint16) if half else out).numpy(),
    )
    return out


class PixelNormalizer(nn.Module):
    """(pixel - mean) / sqrt(var + 1), clipped to +-5, a mean and a variance for each place of the image.

    Where little moves, most of an image is the same in all observations: without it a network sees that first (Burda et
    al. 2018, arXiv 1810.12894, section 2.4). Statistics are over up to 251 observations of each rollout.
    """

    mean: Tensor
    inv_std: Tensor
    count: Tensor
    total_mean: Tensor
    total_m2: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        """`shape`: of an image as it is given to `forward`."""
        super().__init__()
        self.register_buffer("mean", torch.full(shape, 127.5))
        self.register_buffer("inv_std", torch.full(shape, 1 / 64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total_mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("total_m2", torch.zeros(shape, dtype=torch.float64))

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 [N, *shape] -> float32 of the same shape."""
        scaled = pixels.float().sub_(self.mean).mul_(self.inv_std)
        return scaled.clamp_(-PIXEL_CLIP, PIXEL_CLIP)

    @torch.no_grad()
    def merge(self, pixels: Tensor) -> None:
        """Adds images uint8 [N, *shape], N at most MOST_IMAGES; the next version uses them."""
        chosen = pixels.float()
        number = float(len(chosen))
        # Sums of up to 256 squares of 255 are still whole in float32, so no order of adding changes them.
        total = chosen.sum(0).double()
        squares = chosen.square_().sum(0).double()
        mean = total / number
        merge_moments(self, mean, squares - total * mean, number)
        self.inv_std.copy_((self.total_m2 / self.count + 1).rsqrt())
