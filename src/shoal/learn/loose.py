"""Tensors that a module keeps as plain attributes: torch saves and copies only parameters and buffers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


class Loose(NamedTuple):
    """One of them, as it was when it was found."""

    layer: nn.Module
    name: str
    tensor: Tensor
    version: int

    @property
    def changed(self) -> bool:
        """Whether its module has written into it since, or has another there."""
        now = vars(self.layer).get(self.name)
        return now is not self.tensor or _version(self.tensor) != self.version


def loose_tensors(layers: list[nn.Module]) -> list[Loose]:
    """Those of layers that are not shoal's own."""
    return [
        Loose(layer, name, value, _version(value))
        for layer in layers
        if not type(layer).__module__.startswith("shoal.")
        for name, value in vars(layer).items()
        if isinstance(value, torch.Tensor)
    ]


def warn_of_changed(found: list[Loose]) -> list[Loose]:
    """Warns of those that training has changed, which are lost to actors, checkpoints and resume; returns the rest."""
    changed = [one for one in found if one.changed]
    for one in changed:
        warnings.warn(
            f"{type(one.layer).__name__}.{one.name} is a tensor that training changes, but neither a parameter nor a "
            f"buffer: the copy that acts keeps its first value, and checkpoints do not have it. Register it: "
            f'self.register_buffer("{one.name}", ...)',
            stacklevel=2,
        )
    return [one for one in found if not one.changed] if changed else found


def _version(tensor: Tensor) -> int:
    """How often it was written into; 0 for a tensor of inference mode, which does not count that."""
    return 0 if tensor.is_inference() else tensor._version
