"""Critics Q(s, a) beside an actor: several towers on an observation and an action, of which the least counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from gymnasium import spaces
from torch import Tensor, nn

from shoal.nets.actors import box_size, sizes_above
from shoal.nets.distributions import Categorical
from shoal.nets.encoder import make_encoder
from shoal.nets.layers import tower

if TYPE_CHECKING:
    from shoal.nets.distributions import Distribution
    from shoal.nets.network import ActorCriticNet
    from shoal.types import Spec, Tree


class Critics(nn.Module):
    """Values [K, B] of observations and actions by K critics, or of every option [K, B, n] of a Discrete space."""

    native_towers = True

    def __init__(
        self,
        spec: Spec,
        network: ActorCriticNet,
        generator: torch.Generator,
        *,
        squash: bool,
    ) -> None:
        """Orthogonal initialization from `generator`. `squash`: actions of a Box come before the tanh.

        ConfigError: the actions are neither a bounded Box of one axis nor Discrete.
        """
        super().__init__()
        self.spec, self.squash = spec, squash
        size = box_size(spec, discrete=True)
        space = spec.action_space
        outputs = int(space.n) if isinstance(space, spaces.Discrete) else 1
        self.encoder = make_encoder(spec, network, generator)
        first, *hidden = sizes_above(self.encoder, network)
        sizes = [first + size, *hidden, outputs]
        kind = network.activation
        self.towers = nn.ModuleList(
            tower(sizes, kind, last_gain=1.0, generator=generator)
            for _ in range(network.num_critics)
        )

    def forward(
        self, obs: Tree, action: Tensor | None = None, *, first: bool = False
    ) -> Tensor:
        """[B, *obs] and, of a Box, actions [B, D] as the memory holds them; `first`: of the first critic alone."""
        x = self.encoder(obs)
        if action is not None:
            x = torch.cat([x, action.tanh() if self.squash else action], -1)
        asked = self.towers[:1] if first else self.towers
        values = torch.stack([critic(x) for critic in asked])
        return values if action is None else values.squeeze(-1)

    def of(self, obs: Tree, action: Tensor) -> Tensor:
        """The values [K, B] of actions of either kind of space."""
        if not isinstance(self.spec.action_space, spaces.Discrete):
            return self(obs, action)
        index = action.view(1, -1, 1).expand(len(self.towers), -1, 1)
        return self(obs).gather(-1, index).squeeze(-1)


def expected(
    critics: nn.Module, obs: Tree, distribution: Distribution, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """The least critic's value of what a policy does, and its log-probability: [B] each.

    Of a Box for the action that `noise` [B, D] gives; of a Discrete space the mean over all options (Christodoulou
    2019, arXiv 1910.07207).
    """
    if not isinstance(distribution, Categorical):
        action = distribution.sample(noise)
        assert isinstance(action, Tensor)
        return critics(obs, action).amin(0), distribution.log_prob(action)
    values = critics(obs).amin(0)
    return (distribution.log_probs.exp() * values).sum(-1), -distribution.entropy()


def make_critics(
    spec: Spec, network: ActorCriticNet, seed: int, *, squash: bool
) -> Critics:
    """Critics whose weights are drawn from `seed`, otherwise than an actor's."""
    generator = torch.Generator().manual_seed(seed)
    generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
    return Critics(spec, network, generator, squash=squash)
