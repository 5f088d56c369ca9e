"""Layers with orthogonal weights and zero biases, drawn from a generator of the caller's."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn
from torch.nn.utils import skip_init

if TYPE_CHECKING:
    import torch
    from torch import Tensor

RELU_GAIN = 2**0.5


class RunsTower(Protocol):
    """Native code that runs a tower's layers in torch's place."""

    def fits(self, x: Tensor) -> bool:
        """Whether it can take these numbers."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        ...


class Tower(nn.Sequential):
    """Dense layers with an activation between, which a learner may have native code run."""

    activation: str = "relu"
    native: RunsTower | None = None
    """Of this very module: a copy has none."""

    def forward(self, input: Tensor) -> Tensor:  # as torch calls it
        """[..., inputs] -> [..., outputs]."""
        if self.native is not None and self.native.fits(input):
            return self.native(input)
        return super().forward(input)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy starts from."""
        return {k: v for k, v in self.__dict__.items() if k != "native"}


def tower(
    sizes: list[int],
    activation: str,
    *,
    last_gain: float | None,
    generator: torch.Generator,
    layer_norm: bool = False,
) -> Tower:
    """Linear layers with an activation between; orthogonal weights of gain sqrt(2) and `last_gain`, zero biases.

    With last_gain None the last layer keeps its activation; `layer_norm` puts a LayerNorm before each.
    """
    layers: list[nn.Module] = []
    last = len(sizes) - 2
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        if index == last and last_gain is not None:
            layers.append(linear(fan_in, fan_out, generator, gain=last_gain))
        else:
            layers.append(linear(fan_in, fan_out, generator))
            if layer_norm:
                layers.append(nn.LayerNorm(fan_out))
            layers.append(nn.Tanh() if activation == "tanh" else nn.ReLU())
    made = Tower(*layers)
    made.activation = activation
    return made


def linear(
    fan_in: int,
    fan_out: int,
    generator: torch.Generator,
    *,
    gain: float = RELU_GAIN,
) -> nn.Linear:
    """A dense layer with orthogonal weights and zero biases."""
    # Its own first weights would be drawn from torch's global generator.
    layer = skip_init(nn.Linear, fan_in, fan_out)
    assert isinstance(layer, nn.Linear)
    nn.init.orthogonal_(layer.weight, gain=gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def convolution(
    fan_in: int,
    filters: int,
    side: int,
    stride: int,
    generator: torch.Generator,
    *,
    padding: int = 0,
) -> nn.Conv2d:
    """A convolution with orthogonal weights of gain sqrt(2) and zero biases."""
    layer = skip_init(nn.Conv2d, fan_in, filters, side, stride=stride, padding=padding)
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    nn.init.orthogonal_(layer.weight, gain=RELU_GAIN, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def recurrent_cell(
    kind: str,
    fan_in: int,
    units: int,
    generator: torch.Generator,
) -> nn.LSTMCell | nn.GRUCell:
    """A cell `lstm` or `gru` with orthogonal weights and zero biases."""
    cell = skip_init(nn.LSTMCell if kind == "lstm" else nn.GRUCell, fan_in, units)
    assert isinstance(cell, nn.LSTMCell | nn.GRUCell)
    for name, parameter in cell.named_parameters():
        if name.startswith("weight"):
            nn.init.orthogonal_(parameter, generator=generator)
        else:
            nn.init.zeros_(parameter)
    return cell
