"""Q-networks: the value of every action of a Discrete space, of which the highest is chosen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from gymnasium import spaces
from torch import Tensor, nn

from shoal.nets.encoder import make_encoder
from shoal.nets.epsilon_greedy import EpsilonGreedy
from shoal.nets.given import OutputError, as_floats, dtype_of, forward, rows_of
from shoal.nets.images import ImageEncoder
from shoal.nets.layers import Tower, recurrent_cell, tower, unroll, zero_state
from shoal.nets.noisy import NoisyLinear
from shoal.nets.policy import Output
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.nets.network import QNet
    from shoal.types import Spec, Tree


RETURNS = "return the values of the actions [N, n] as a tensor of float32"


class QNetwork(nn.Module):
    """Q(s, a) for all actions, or quantiles of the returns whose means they are.

    With `dueling` V(s) + A(s, a) - mean_a A(s, a) (Wang et al. 2016, arXiv 1511.06581, eq. 9).
    """

    log_std: None = None
    """There are no Boxes among the actions."""

    def __init__(self, spec: Spec, network: QNet, generator: torch.Generator) -> None:
        """Orthogonal initialization from `generator`; noisy layers have their own.

        Raises:
            ConfigError: the actions are not Discrete, or there is nothing that `layer_norm` could normalize.
        """
        super().__init__()
        space = discrete(spec)
        self.spec, self.network = spec, network
        self.start, self.actions = int(space.start), int(space.n)
        self.encoder = make_encoder(spec, network, generator)
        sizes = self._below_heads(generator)
        numbers = max(1, network.quantiles)
        if network.dueling:
            self.body = self._hidden(sizes, generator)
            self.advantage = self._tower([sizes[-1], self.actions * numbers], generator)
            self.state_value = self._tower([sizes[-1], numbers], generator)
        else:
            self.q = self._tower([*sizes, self.actions * numbers], generator)
        if network.layer_norm and not any(map(is_norm, self.modules())):
            raise ConfigError(
                "network.layer_norm normalizes hidden layers, and hidden=() leaves none; "
                "give it some, such as 128 128, or leave layer_norm out"
            )

    def initial_state(self, num_rows: int) -> Tree:
        """No memory."""
        return None

    def head(self, values: Tensor, _: Tensor | None) -> EpsilonGreedy:
        """The greedy choice by these values [..., n]."""
        return EpsilonGreedy(values, start=self.start)

    def forward(self, obs: Tree, state: Tree, start: Tensor | None) -> Output:
        """[..., *obs] -> Output, with the highest value; state and start do not matter."""
        return self._output(self.encoder(obs), None)

    def _below_heads(self, generator: torch.Generator) -> list[int]:
        """The numbers that the encoder gives, and the units of the hidden layers between it and the heads."""
        return self._dense_sizes()

    def _dense_sizes(self) -> list[int]:
        """The numbers that the encoder gives, and the units of each hidden layer; images have none."""
        hidden = () if isinstance(self.encoder, ImageEncoder) else self.network.hidden
        return [self.encoder.size, *hidden]

    def _output(self, x: Tensor, state: Tree) -> Output:
        """What lies below the heads [..., N] -> Output with the state after the last step."""
        numbers = self._numbers(x, noisy=True)
        distribution = EpsilonGreedy(
            numbers.mean(-1),
            start=self.start,
            quantiles=numbers if self.network.quantiles else None,
        )
        if self.network.noisy:
            distribution.settled = self._numbers(x, noisy=False).mean(-1)
        return Output(distribution, distribution.values.amax(-1), state)

    def _tower(self, sizes: list[int], generator: torch.Generator) -> nn.Sequential:
        """Dense layers of these sizes, of which the last is a noisy one where the network is."""
        if self.network.noisy:
            below = self._hidden(sizes[:-1], generator)
            return nn.Sequential(*below, NoisyLinear(sizes[-2], sizes[-1], generator))
        return self._hidden(sizes, generator, last_gain=1.0)

    def _hidden(
        self,
        sizes: list[int],
        generator: torch.Generator,
        *,
        last_gain: float | None = None,
    ) -> Tower:
        """Dense layers of these sizes, normalized where the network says so; with a gain the last one is plain."""
        network = self.network
        return tower(
            sizes,
            network.activation,
            last_gain=last_gain,
            generator=generator,
            layer_norm=network.layer_norm,
        )

    def _numbers(self, x: Tensor, *, noisy: bool) -> Tensor:
        """What lies below the heads [..., N] -> values or their quantiles [..., n, quantiles]."""
        quantiles = max(1, self.network.quantiles)
        if not self.network.dueling:
            return through(self.q, x, noisy=noisy).unflatten(-1, (-1, quantiles))
        x = self.body(x)
        advantage = through(self.advantage, x, noisy=noisy)
        advantage = advantage.unflatten(-1, (-1, quantiles))
        value = through(self.state_value, x, noisy=noisy).unsqueeze(-2)
        return value + advantage - advantage.mean(-2, keepdim=True)


class RecurrentQNetwork(QNetwork):
    """The hidden layers, a GRU or LSTM whose state is zeroed at each start, and linear heads on it."""

    def initial_state(self, num_rows: int) -> Tree:
        """Zeros [B, H]: h, or (h, c)."""
        return zero_state(self.cell, num_rows)

    def forward(self, obs: Tree, state: Tree, start: Tensor | None) -> Output:
        """[T, B, *obs], state before step 0, start [T, B] -> Output for every step, with the highest values."""
        assert start is not None, "a network with a memory is told where episodes start"
        x = self.trunk(self.encoder(obs))
        hidden, state = unroll(self.cell, x, state, start)
        return self._output(hidden, state)

    def _below_heads(self, generator: torch.Generator) -> list[int]:
        """Makes the hidden layers and the cell; the units of the cell."""
        network = self.network
        sizes = self._dense_sizes()
        self.trunk = self._hidden(sizes, generator)
        self.cell = recurrent_cell(
            network.recurrent, sizes[-1], network.recurrent_size, generator
        )
        return [network.recurrent_size]


class PlainQNetwork(nn.Module):
    """A user's module `obs [N, ...] -> values [N, n]`, one for each action."""

    def __init__(self, module: nn.Module, spec: Spec) -> None:
        """Wraps `module`, which gets float observations in its parameters' dtype. ConfigError: no Discrete actions."""
        super().__init__()
        space = discrete(spec)
        self.module, self.layout = module, spec.observation
        self.start, self.actions = int(space.start), int(space.n)
        self.dtype = dtype_of(module)

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def forward(self, obs: Tree, state: None, start: Tensor | None) -> Output:
        """[..., *obs] -> Output."""
        lead, rows = rows_of(obs, self.layout, self.dtype)
        given = forward(self.module, rows, self.layout)
        parts = as_floats(given, self.module, returns=RETURNS)
        if len(parts) != 1 or parts[0].shape != (math.prod(lead), self.actions):
            shapes = [tuple(part.shape) for part in parts]
            raise OutputError(
                f"the Q-network {type(self.module).__name__} gave shapes {shapes} for {math.prod(lead)} observations; "
                f"expected values [N, {self.actions}], one for each action"
            )
        values = parts[0].reshape(*lead, self.actions)
        distribution = EpsilonGreedy(values, start=self.start)
        return Output(distribution, values.amax(-1), None)


def discrete(spec: Spec) -> spaces.Discrete:
    """The actions; ConfigError where they are not Discrete."""
    space = spec.action_space
    if isinstance(space, spaces.Discrete):
        return space
    raise ConfigError(
        f"{spec.env_id}: a Q-network has one value for each action of a Discrete space, but the actions are {space}; "
        "choose an algorithm that has a policy for them (`shoal algos` lists all)"
    )


def is_norm(layer: nn.Module) -> bool:
    """Whether a layer is one that `layer_norm` adds."""
    return isinstance(layer, nn.LayerNorm)


def check_memory(network: QNet, *, instead: str) -> None:
    """ConfigError for a network without a memory, or of kinds that sequences do not learn; `instead` says what does."""
    if network.recurrent == "none":
        raise ConfigError(
            "a network without a memory needs no sequences: set network.recurrent to gru or lstm, or choose "
            f"{instead}"
        )
    if network.noisy or network.quantiles:
        raise ConfigError(
            "sequences learn mean values and explore by epsilon: network.noisy and network.quantiles do not go with "
            f"them; leave them out, or choose {instead}"
        )


def check_no_memory(network: QNet, *, choose: str) -> None:
    """ConfigError where a network that learns from single transitions would need a memory; `choose` says what works."""
    if network.recurrent != "none":
        raise ConfigError(
            f"network.recurrent={network.recurrent!r} needs sequences with the states that the network had, and single "
            f"transitions are drawn here; choose {choose}, or set network.recurrent to none"
        )


def check_huber(network: QNet, *, huber: bool) -> None:
    """ConfigError where a loss without Huber's is asked for, which quantiles never have."""
    if network.quantiles and not huber:
        raise ConfigError(
            "quantiles are learned with Huber's loss, so huber=False would change nothing; "
            "leave it out, or set network.quantiles=0"
        )


def through(layers: nn.Sequential, x: Tensor, *, noisy: bool) -> Tensor:
    """A tower's output, with the noise of its noisy layers or without."""
    for layer in layers:
        if isinstance(layer, NoisyLinear) and not noisy:
            x = layer.without_noise(x)
        else:
            x = layer(x)
    return x


def action_values(output: Output) -> Tensor:
    """The values [..., n] that a Q-network's output holds; ConfigError for another policy's."""
    return _greedy(output).values


def values_of(output: Output, action: Tensor) -> Tensor:
    """The values of `action` [...], or the quantiles [..., N] of its return where the network has some.

    ConfigError for another policy's output.
    """
    distribution = _greedy(output)
    numbers = distribution.quantiles
    if numbers is None:
        return distribution.values.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    index = action[..., None, None].expand(*action.shape, 1, numbers.shape[-1])
    return numbers.gather(-2, index).squeeze(-2)


def _greedy(output: Output) -> EpsilonGreedy:
    distribution = output.distribution
    if not isinstance(distribution, EpsilonGreedy):
        raise ConfigError(
            "Q-learning needs a policy whose distribution is shoal.nets.epsilon_greedy.EpsilonGreedy(values), "
            f"got {type(distribution).__name__}"
        )
    return distribution


def make_q_network(spec: Spec, network: QNet, seed: int) -> QNetwork:
    """A Q-network for a specification, its weights drawn from `seed` alone."""
    kind = QNetwork if network.recurrent == "none" else RecurrentQNetwork
    return kind(spec, network, torch.Generator().manual_seed(seed))
