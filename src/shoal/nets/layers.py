"""Layers with orthogonal weights and zero biases, drawn from a generator of the caller's."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from torch.nn.utils import skip_init

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.types import Tree

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


def zero_state(cell: nn.LSTMCell | nn.GRUCell, num_rows: int) -> Tree:
    """The state that a cell begins with: zeros [B, H], of an LSTM (h, c)."""
    weights = cell.weight_hh
    zeros = torch.zeros(num_rows, cell.hidden_size, device=weights.device)
    return (zeros, zeros.clone()) if isinstance(cell, nn.LSTMCell) else zeros


def unroll(
    cell: nn.LSTMCell | nn.GRUCell, x: Tensor, state: Tree, start: Tensor
) -> tuple[Tensor, Tree]:
    """[T, B, N], the state before step 0, start [T, B] -> [T, B, H], the state after the last step.

    The state is zeroed before each step where `start` is true.
    """
    keep = (~start.bool()).to(x.dtype).unsqueeze(-1)
    outputs: list[Tensor] = []
    for x_t, keep_t in zip(x, keep, strict=True):
        if isinstance(cell, nn.LSTMCell):
            h, c = state
            state = cell(x_t, (h * keep_t, c * keep_t))
            outputs.append(state[0])
        else:
            state = cell(x_t, state * keep_t)
            outputs.append(state)
    return torch.stack(outputs), state
