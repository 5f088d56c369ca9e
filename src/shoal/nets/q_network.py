"""Q-networks: the value of every action of a Discrete space, of which the highest is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from gymnasium import spaces
from torch import Tensor, nn

from shoal.nets.encoder import make_encoder
from shoal.nets.epsilon_greedy import EpsilonGreedy
from shoal.nets.images import ImageEncoder
from shoal.nets.layers import tower
from shoal.nets.policy import Output
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.nets.network import Network
    from shoal.types import Spec, Tree


class QNetwork(nn.Module):
    """Q(s, a) for all actions; with `dueling` V(s) + A(s, a) - mean_a A(s, a) (Wang et al. 2016, arXiv 1511.06581)."""

    log_std: None = None
    """There are no Boxes among the actions."""

    def __init__(
        self,
        spec: Spec,
        network: Network,
        generator: torch.Generator,
        *,
        dueling: bool = False,
    ) -> None:
        """Orthogonal initialization from `generator`.

        Raises:
            ConfigError: the actions are not Discrete, or the network has what a Q-network cannot have.
        """
        super().__init__()
        space = spec.action_space
        if not isinstance(space, spaces.Discrete):
            raise ConfigError(
                f"{spec.env_id}: a Q-network has one value for each action of a Discrete space, "
                f"but the actions are {space}; ppo takes them"
            )
        self.spec, self.network, self.dueling = spec, network, dueling
        self.start = int(space.start)
        self.encoder = make_encoder(spec, network, generator)
        sizes = [self.encoder.size]
        if not isinstance(self.encoder, ImageEncoder):
            sizes += network.hidden
        kind, self.actions = network.activation, int(space.n)
        if dueling:
            self.body = tower(sizes, kind, last_gain=None, generator=generator)
            width = sizes[-1]
            self.advantage = tower(
                [width, self.actions], kind, last_gain=1.0, generator=generator
            )
            self.state_value = tower(
                [width, 1], kind, last_gain=1.0, generator=generator
            )
        else:
            self.q = tower(
                [*sizes, self.actions], kind, last_gain=1.0, generator=generator
            )

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def values(self, obs: Tree) -> Tensor:
        """[..., *obs] -> [..., n]."""
        x = self.encoder(obs)
        if not self.dueling:
            return self.q(x)
        x = self.body(x)
        advantage = self.advantage(x)
        return self.state_value(x) + advantage - advantage.mean(-1, keepdim=True)

    def head(self, values: Tensor, _: Tensor | None) -> EpsilonGreedy:
        """The greedy choice by these values."""
        return EpsilonGreedy(values, start=self.start)

    def forward(self, obs: Tree, state: None, start: Tensor | None) -> Output:
        """[..., *obs] -> Output, with the highest value; state and start do not matter."""
        values = self.values(obs)
        return Output(self.head(values, None), values.amax(-1), None)


def action_values(output: Output) -> Tensor:
    """The values [..., n] that a Q-network's output holds; ConfigError for another policy's."""
    distribution = output.distribution
    if not isinstance(distribution, EpsilonGreedy):
        raise ConfigError(
            f"Q-learning needs a policy whose distribution is shoal.nets.epsilon_greedy.EpsilonGreedy(values), "
            f"got {type(distribution).__name__}"
        )
    return distribution.values


def make_q_network(
    spec: Spec, network: Network, seed: int, *, dueling: bool = False
) -> QNetwork:
    """A Q-network for a specification, its weights drawn from `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    return QNetwork(spec, network, generator, dueling=dueling)


def check_q_network(network: Network) -> None:
    """ConfigError naming the first setting of a network that a Q-network does not have."""
    default = type(network)()
    for name in ("recurrent", "share", "squash", "log_std_init", "sde_interval"):
        value = getattr(network, name)
        if value != getattr(default, name):
            raise ConfigError(
                f"network.{name}={value!r}: a Q-network has none; leave it out"
            )
