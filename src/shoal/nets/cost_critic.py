"""A critic of costs: what an observation's episode is going to cost from there on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from shoal.nets.actors import sizes_above
from shoal.nets.encoder import make_encoder
from shoal.nets.layers import tower

if TYPE_CHECKING:
    from shoal.nets.network import Network
    from shoal.types import Spec, Tree


class CostCritic(nn.Module):
    """Dense layers on an encoded observation, without memory: [..., *obs] -> values [...]."""

    native_towers = True

    def __init__(self, spec: Spec, network: Network, seed: int) -> None:
        """With the hidden layers of `network`; weights are drawn from `seed`, otherwise than a policy's of the same."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        self.encoder = make_encoder(spec, network, generator)
        sizes = [*sizes_above(self.encoder, network), 1]
        kind = network.activation
        self.body = tower(sizes, kind, last_gain=1.0, generator=generator)

    def forward(self, obs: Tree) -> Tensor:
        """The values [...] of observations [..., *obs]."""
        return self.body(self.encoder(obs)).squeeze(-1)
