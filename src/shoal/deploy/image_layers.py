"""Layers for images as parts of a program: pixels in the order height, width, channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from shoal.deploy.arrays import array
from shoal.deploy.program import (
    Activation,
    Convolution,
    Dense,
    Image,
    MaxPool,
    Norm,
    Residual,
    Standardize,
)
from shoal.nets import images
from shoal.nets.normalizer import PIXEL_CLIP
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.deploy.program import Layer
    from shoal.types import Leaf

    Sides = tuple[int, int, int]


def image_reading(encoder: images.ImageEncoder, leaf: Leaf) -> Image:
    """How an image becomes features."""
    sides = images.sides_of(encoder.shape)
    normalizer = None
    if encoder.normalizer is not None:
        mean, inv_std = encoder.normalizer.mean, encoder.normalizer.inv_std
        normalizer = Standardize(
            array(mean).ravel(), array(inv_std).ravel(), PIXEL_CLIP
        )
    first = _convolution(encoder.first, sides, scale=encoder.scale)
    rest, _ = image_layers(encoder.rest, first.made)
    last: list[Layer] = [Activation("relu")]
    if isinstance(encoder.norm, nn.LayerNorm):
        last.insert(0, _norm(encoder.norm))
    dense = Dense(array(encoder.dense.weight.T), array(encoder.dense.bias))
    return Image(
        leaf=leaf,
        sides=sides,
        last=encoder.last,
        low=encoder.low,
        span=encoder.span,
        normalizer=normalizer,
        layers=(first, *rest, dense, *last),
        size=encoder.size,
    )


def image_layers(
    modules: Iterable[nn.Module], given: Sides
) -> tuple[tuple[Layer, ...], Sides]:
    """Layers that read [height, width, channels], and the sides of what the last one gives.

    Raises:
        ConfigError: a module that shoal's image encoders do not have.
    """
    made: list[Layer] = []
    for module in modules:
        match module:
            case nn.Conv2d():
                layer = _convolution(module, given)
                made.append(layer)
                given = layer.made
            case nn.MaxPool2d():
                height, width, channels = given
                pooled = (_halved(height), _halved(width), channels)
                made.append(MaxPool(given, pooled))
                given = pooled
            case nn.ReLU():
                made.append(Activation("relu"))
            case nn.GroupNorm() | nn.LayerNorm():
                made.append(_norm(module))
            case images.Residual():
                inner, _ = image_layers(module.inner, given)
                made.append(Residual(inner))
            case nn.Sequential():
                inner, given = image_layers(module, given)
                made += inner
            case _:
                raise ConfigError(
                    f"the image encoder holds a {type(module).__name__}, which C source is not written of; "
                    "export to onnx or torchscript instead"
                )
    return tuple(made), given


def _convolution(layer: nn.Conv2d, given: Sides, *, scale: float = 1.0) -> Convolution:
    """A convolution whose weights are multiplied by `scale`."""
    side, stride = layer.kernel_size[0], layer.stride[0]
    padding = layer.padding[0]
    assert isinstance(padding, int)
    assert layer.bias is not None
    height, width, _ = given
    tall, wide = ((x + 2 * padding - side) // stride + 1 for x in (height, width))
    weight = array((layer.weight * scale).permute(2, 3, 1, 0))
    made = (tall, wide, layer.out_channels)
    return Convolution(weight, array(layer.bias), stride, padding, given, made)


def _norm(layer: nn.GroupNorm | nn.LayerNorm) -> Norm:
    """A norm over all numbers; of a GroupNorm weights repeat over the places, as channels stand last."""
    return Norm(array(layer.weight), array(layer.bias), layer.eps)


def _halved(side: int) -> int:
    """Places of a maximum over 3 at every second place, with a border of one."""
    return (side - 1) // 2 + 1
