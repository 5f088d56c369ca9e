"""Features of observations, by a random network that nobody trains, and by another that learns to tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from shoal.nets.encoder import make_encoder
from shoal.nets.layers import RELU_GAIN, tower
from shoal.nets.network import Network
from shoal.nets.normalizer import Normalizer

if TYPE_CHECKING:
    from shoal.types import Spec, Tree

WIDTH = 64
"""Units of each hidden layer, and features."""
CLIP = 5.0
"""Normalized numbers of an observation lie within +-5."""


class Features(nn.Module):
    """Dense layers with ReLU on an encoded observation, whose numbers are normalized and clipped to +-5."""

    native_towers = True

    def __init__(self, spec: Spec, hidden: int, seed: int) -> None:
        """So many `hidden` layers; weights are drawn from `seed`, otherwise than a policy's of the same."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        self.encoder = make_encoder(spec, Network(normalize_obs=True), generator)
        for part in self.encoder.modules():
            if isinstance(part, Normalizer):
                part.clip = CLIP
        sizes = [self.encoder.size, *[WIDTH] * (hidden + 1)]
        self.tower = tower(sizes, "relu", last_gain=RELU_GAIN, generator=generator)
        self.scale = Normalizer(1)
        """The running deviation of what these features are missed by."""

    def forward(self, obs: Tree) -> Tensor:
        """[N, *obs] -> [N, features]."""
        return self.tower(self.encoder(obs))
