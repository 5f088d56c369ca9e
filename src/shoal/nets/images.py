"""Layers for images: the networks of the Atari papers, from uint8 pixels to a vector."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from shoal.nets.layers import convolution, linear
from shoal.nets.normalizer import MOST_IMAGES, PixelNormalizer, convert_pixels
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.types import Spec

LayersT = TypeVar("LayersT", bound=nn.Module)

CONVOLUTIONS = {
    "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
    "nips": ((16, 8, 4), (32, 4, 2)),
    "minatar": ((16, 3, 1),),
}
"""Filters, width and stride of each layer (Mnih et al. 2015 and 2013; Young and Tian 2019)."""
SECTIONS = (16, 32, 32)
"""Filters of the three sections of the residual network (Espeholt et al. 2018)."""
FEATURES = {"nature": 512, "nips": 256, "impala": 256, "minatar": 128}
"""Units of the layer after the convolutions."""
SMALLEST = {"nature": 36, "nips": 20, "impala": 8, "minatar": 3}
"""Pixels that each side must have."""


def lacks_bfloat16() -> bool:
    """Whether this CPU computes bfloat16 without instructions for it; False where torch cannot tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    known = [value for name, value in capabilities.items() if "bf16" in name]
    return bool(known) and not any(known)


def image_net(spec: Spec, image: str) -> str:
    """The layers for these observations, a key of FEATURES, or "" where they are no image or shall be flattened.

    An image is a uint8 Box of three axes, or of four: a stack of color images. Where layers are asked for by name, so
    are a uint8 Box of two axes, a Box of floats with finite bounds, and one of truth values.

    Raises:
        ConfigError: it is too small for the layers asked for, or has floats without bounds.
    """
    space = spec.observation_space
    if image == "flat" or not isinstance(space, spaces.Box):
        return ""
    usual = space.dtype == np.uint8 and len(space.shape) in (3, 4)
    if not usual and (image == "auto" or not _may_be_image(space)):
        return ""
    height, width, _ = sides_of(space.shape)
    if image == "auto":
        return "nature" if min(height, width) >= SMALLEST["nature"] else ""
    if min(height, width) < SMALLEST[image]:
        fits = [kind for kind, side in SMALLEST.items() if min(height, width) >= side]
        others = " or ".join(f'"{kind}"' for kind in ("flat", *fits))
        raise ConfigError(
            f'image="{image}" needs {SMALLEST[image]} x {SMALLEST[image]} pixels or more, got {height} x {width}; '
            f"use image={others}"
        )
    if space.dtype != np.uint8 and not space.is_bounded():
        raise ConfigError(
            f'image="{image}" scales pixels by the bounds of their space, but {space} has none; give it bounds, '
            'such as 0 and 1, or use image="flat"'
        )
    return image


def _may_be_image(space: spaces.Box) -> bool:
    """Whether layers for images can be asked for: bytes, floats or truth values, of two to four axes."""
    floats = np.issubdtype(space.dtype, np.floating)
    axes = (3, 4) if floats else (2, 3, 4)
    known = floats or space.dtype == np.uint8 or _holds_flags(space)
    return len(space.shape) in axes and known


def _holds_flags(space: spaces.Box) -> bool:
    """Whether its numbers are truth values."""
    return np.issubdtype(space.dtype, np.bool_)


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether an image's last axis is its channels: there are fewer of them than rows."""
    return len(shape) > 2 and shape[-1] < shape[-3]


def sides_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels of an image [H, W], [H, W, C] or [C, H, W], or of a stack [K, ...] of these."""
    if len(shape) == 2:
        return shape[0], shape[1], 1
    *stack, first, second, third = shape
    depth = stack[0] if stack else 1
    if channels_last(shape):
        return first, second, depth * third
    return second, third, depth * first


class Frozen(NamedTuple):
    """The layers in bfloat16, for forwards without gradients."""

    first: nn.Conv2d
    rest: nn.Sequential
    dense: nn.Linear


class ImageEncoder(nn.Module):
    """uint8 pixels [..., C, H, W] or [..., H, W, C] -> features [..., size], normalized or scaled by 1/255.

    A stack [..., K, H, W, C] becomes channels, an image [..., H, W] has one; floats are scaled to 0 to 255 first, truth
    values too where they are normalized, and are 0 and 1 where not. The dense layer takes what the convolutions give in
    the order H, W, C.
    """

    def __init__(
        self,
        spec: Spec,
        kind: str,
        *,
        half: bool,
        generator: torch.Generator,
        normalize: bool = False,
        layer_norm: bool = False,
    ) -> None:
        """`kind`: a key of FEATURES. `half`: computes in bfloat16; weights and features stay float32.

        `normalize` adds a PixelNormalizer, `layer_norm` a norm over all of an image's numbers before each activation.
        """
        super().__init__()
        self.shape = spec.observation.single.shape
        self.halved = half
        self.native = True
        """Whether native code may convert bytes; a graph of torch's operations, for an export, has torch do it."""
        self.size = FEATURES[kind]
        self.last = channels_last(self.shape)
        self._frozen: Frozen | None = None
        height, width, channels = sides_of(self.shape)
        space = spec.observation_space
        assert isinstance(space, spaces.Box)
        self.low, self.span = 0.0, 0.0  # no span: as they are
        flags = _holds_flags(space)
        plain = space.dtype == np.uint8 or (flags and not normalize)
        if not plain:
            self.low = float(space.low.min())
            self.span = float(space.high.max()) - self.low
        self.normalizes = normalize
        self.normalizer: PixelNormalizer | None = None
        self.scale = 1.0 if flags else 1 / 255
        if normalize:
            self.normalizer = PixelNormalizer((height, width, channels))
            self.scale = 1.0
        if kind == "impala":
            layers = _residual_layers(channels, generator, layer_norm=layer_norm)
        else:
            layers = _plain_layers(kind, channels, generator, layer_norm=layer_norm)
        self.first, self.rest = layers
        with torch.no_grad():
            seen = self.rest(self.first(torch.zeros(1, channels, height, width)))
        self.dense = linear(seen.numel(), self.size, generator)
        self.norm = nn.LayerNorm(self.size) if layer_norm else nn.Identity()

    def forward(self, obs: Tensor) -> Tensor:
        """[..., *shape] -> [..., size]."""
        lead = obs.shape[: obs.dim() - len(self.shape)]
        kind = torch.bfloat16 if self.halved else self.dense.weight.dtype
        pixels = self._normalized(self._folded(obs), kind).permute(0, 3, 1, 2)
        if self._frozen is not None and not torch.is_grad_enabled():
            first, rest, dense = self._frozen
            seen = _convolved(pixels, first, first.weight)
            features = dense(_flat(rest(seen)))
        else:
            with torch.autocast(
                obs.device.type,
                dtype=torch.bfloat16,
                enabled=self.halved,
            ):
                scaled = self.first.weight * self.scale
                seen = _convolved(pixels, self.first, scaled)
                features = self.dense(_flat(self.rest(seen)))
        return F.relu(self.norm(features.float())).reshape(*lead, self.size)

    def observe(self, obs: Tensor) -> None:
        """Merges up to MOST_IMAGES of the observations [N, *shape] into the normalizer's statistics.

        A prime number and no fixed stride: a rollout's rows take turns, and a stride would come upon the same ones.
        """
        if self.normalizer is not None and len(obs):
            count = min(len(obs), MOST_IMAGES)
            chosen = torch.arange(count, device=obs.device) * len(obs) // count
            self.normalizer.merge(self._channels_last(self._folded(obs[chosen])))

    def _folded(self, obs: Tensor) -> Tensor:
        """[..., *shape] -> [N, H, W, C] or [N, C, H, W], a stack folded into the channels; of 0 to 255."""
        pixels = obs.reshape(-1, *self.shape)
        if self.span:
            pixels = (pixels.float() - self.low) * (255 / self.span)
        if len(self.shape) == 2:
            return pixels.unsqueeze(1)
        if len(self.shape) == 3:
            return pixels
        if self.last:
            return pixels.permute(0, 2, 3, 1, 4).flatten(3)
        return pixels.flatten(1, 2)

    def _normalized(self, pixels: Tensor, kind: torch.dtype) -> Tensor:
        """[N, *shape] -> [N, H, W, C] of `kind`; without a normalizer still 0 to 255, which are exact in bfloat16."""
        given, made = pixels.dtype, kind in (torch.float32, torch.bfloat16)
        on_cpu = pixels.device.type == "cpu"
        if self.native and given is torch.uint8 and made and on_cpu:
            last, normalizer = self.last, self.normalizer
            return convert_pixels(pixels, normalizer, channels_last=last, dtype=kind)
        placed = self._channels_last(pixels)
        if self.normalizer is not None:
            placed = self.normalizer(placed)
        return placed.to(kind)

    def _channels_last(self, pixels: Tensor) -> Tensor:
        """[N, *shape] -> [N, H, W, C], what convolutions are fastest in.

        Plane by plane: torch's own change of layout is four times slower.
        """
        return pixels if self.last else torch.stack(pixels.unbind(1), dim=-1)

    @torch.no_grad()
    def freeze(self) -> None:
        """Converts the weights once, for forwards without gradients; call it again after each change of theirs."""
        if not self.halved:
            return
        own = (self.first, self.rest, self.dense)
        if self._frozen is None:
            # In a tuple they are no parameters of this module.
            self._frozen = Frozen(
                _half(self.first),
                _half(self.rest),
                _half(self.dense),
            )
        for copies, layers in zip(self._frozen, own, strict=True):
            pairs = zip(copies.parameters(), layers.parameters(), strict=True)
            for half, weight in pairs:
                half.copy_(weight)
        self._frozen.first.weight.copy_(self.first.weight * self.scale)


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(
        self, filters: int, generator: torch.Generator, *, layer_norm: bool = False
    ) -> None:
        """As many filters come out as go in."""
        super().__init__()
        self.inner = nn.Sequential(
            *_activation(filters, layer_norm=layer_norm),
            convolution(filters, filters, 3, 1, generator, padding=1),
            *_activation(filters, layer_norm=layer_norm),
            convolution(filters, filters, 3, 1, generator, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, filters, H, W] -> the same."""
        return x + self.inner(x)


class Pooled(nn.Sequential):
    """A maximum over 3 x 3 at every second place, then two residual blocks."""

    def __init__(
        self, filters: int, generator: torch.Generator, *, layer_norm: bool = False
    ) -> None:
        """As many filters come out as go in."""
        blocks = [Residual(filters, generator, layer_norm=layer_norm) for _ in range(2)]
        super().__init__(nn.MaxPool2d(3, 2, padding=1), *blocks)


class Section(nn.Sequential):
    """A convolution, and what follows it in a section of the residual network."""

    def __init__(
        self,
        fan_in: int,
        filters: int,
        generator: torch.Generator,
        *,
        layer_norm: bool = False,
    ) -> None:
        """`fan_in`: filters of the section before."""
        super().__init__(
            convolution(fan_in, filters, 3, 1, generator, padding=1),
            Pooled(filters, generator, layer_norm=layer_norm),
        )


def _flat(seen: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H * W * C]: the order that they stand in, so that nothing is copied."""
    return seen.permute(0, 2, 3, 1).flatten(1)


def _activation(filters: int, *, layer_norm: bool) -> list[nn.Module]:
    """A ReLU, with a norm over all filters and places before it or without."""
    return [nn.GroupNorm(1, filters), nn.ReLU()] if layer_norm else [nn.ReLU()]


def _plain_layers(
    kind: str,
    channels: int,
    generator: torch.Generator,
    *,
    layer_norm: bool,
) -> tuple[nn.Conv2d, nn.Sequential]:
    """The convolutions of Mnih et al.: the first one, and what follows it."""
    (filters, side, stride), *others = CONVOLUTIONS[kind]
    first = convolution(channels, filters, side, stride, generator)
    layers = _activation(filters, layer_norm=layer_norm)
    for more_filters, side, stride in others:
        layers.append(convolution(filters, more_filters, side, stride, generator))
        layers += _activation(more_filters, layer_norm=layer_norm)
        filters = more_filters
    return first, nn.Sequential(*layers)


def _residual_layers(
    channels: int, generator: torch.Generator, *, layer_norm: bool
) -> tuple[nn.Conv2d, nn.Sequential]:
    """The residual network of Espeholt et al.: its first convolution, and what follows it."""
    sections: list[nn.Module] = []
    for fan_in, filters in pairwise(SECTIONS):
        sections.append(Section(fan_in, filters, generator, layer_norm=layer_norm))
    first = convolution(channels, SECTIONS[0], 3, 1, generator, padding=1)
    pooled = Pooled(SECTIONS[0], generator, layer_norm=layer_norm)
    last = _activation(SECTIONS[-1], layer_norm=layer_norm)
    return first, nn.Sequential(pooled, *sections, *last)


def _convolved(pixels: Tensor, layer: nn.Conv2d, weight: Tensor) -> Tensor:
    """The layer with another weight."""
    stride, padding = layer.stride, layer.padding
    return F.conv2d(pixels, weight, layer.bias, stride, padding)


def _half(layers: LayersT) -> LayersT:
    """A copy in bfloat16, in the layout that convolutions are fastest in."""
    copied = copy.deepcopy(layers).to(torch.bfloat16)
    convert_conv2d_weight_memory_format(copied, torch.channels_last)
    return copied
