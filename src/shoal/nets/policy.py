"""Policies of one signature: policy(obs [T, B, ...], state, start [T, B]) -> Output(distribution, value, state)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from shoal.nets.encoder import Encoder, TreeEncoder, make_encoder
from shoal.nets.heads import deviations, head, head_size
from shoal.nets.images import ImageEncoder, image_net
from shoal.types import ConfigError, Spec, Tree, check_ranges, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.nets.distributions import Distribution


@dataclass(frozen=True, slots=True)
class Output:
    """What a policy says of [T, B] steps: a distribution over actions, values [T, B], the state after the last step."""

    distribution: Distribution
    value: Tensor
    state: Tree


@dataclass(frozen=True, slots=True)
class Network:
    """The shape of the default policy."""

    hidden: tuple[int, ...] = (64, 64)
    """Units of each layer; more units can represent more and cost more a step."""
    activation: Literal["tanh", "relu"] = "tanh"
    """tanh is steadier for small networks, relu cheaper for wide ones."""
    recurrent: Literal["none", "gru", "lstm"] = "none"
    """A memory between the layers and the heads, for tasks whose observation does not tell the whole state."""
    recurrent_size: int = 64
    """Units of the memory."""
    normalise_obs: bool = False
    """Normalise observations by their running mean and deviation; helps when their scales differ."""
    image: Literal["auto", "nature", "nips", "impala", "flat"] = "auto"
    """Layers for images; auto is nature from 36 x 36 pixels on, else flat. impala sees most and costs most."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 computes the layers for images with 8 bits of mantissa: faster where the CPU or GPU has it."""
    squash: bool = False
    """Box actions: tanh of a Gaussian scaled to the Box, instead of a clipped Gaussian."""
    log_std_init: float = 0.0
    """Box actions: the initial log standard deviation; larger explores more widely."""

    def __post_init__(self) -> None:
        """Refuses sizes that cannot be."""
        check_ranges(self, recurrent_size=(1, inf), log_std_init=(-20, 20))
        if min(self.hidden, default=1) < 1:
            raise ConfigError(
                f"hidden must hold a size >= 1 for each layer, such as 64 64, got {self.hidden}"
            )


def tower(
    sizes: list[int],
    activation: str,
    *,
    last_gain: float | None,
    generator: torch.Generator,
) -> nn.Sequential:
    """Linear layers with an activation between; orthogonal weights of gain sqrt(2) and `last_gain`, zero biases.

    With last_gain None the last layer keeps its activation.
    """
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = index == len(sizes) - 2 and last_gain is not None
        # Linear's own initialisation would draw from torch's global generator.
        linear: Any = skip_init(nn.Linear, fan_in, fan_out)
        nn.init.orthogonal_(
            linear.weight,
            gain=float(last_gain or 0) if last else 2**0.5,
            generator=generator,
        )
        nn.init.zeros_(linear.bias)
        layers.append(linear)
        if not last:
            layers.append(nn.Tanh() if activation == "tanh" else nn.ReLU())
    return nn.Sequential(*layers)


def encoder_of(spec: Spec, network: Network, generator: torch.Generator) -> Any:
    """The encoder of a specification's observations, as the settings say."""
    return make_encoder(
        spec,
        normalise=network.normalise_obs,
        image=network.image,
        half=network.precision == "bfloat16",
        generator=generator,
    )


class MlpPolicy(nn.Module):
    """Two towers, an actor and a critic, that share nothing but the encoder."""

    def __init__(
        self, spec: Spec, network: Network, generator: torch.Generator
    ) -> None:
        """Orthogonal initialisation from `generator`."""
        super().__init__()
        self.spec, self.network = spec, network
        self.encoder: Encoder | TreeEncoder = encoder_of(spec, network, generator)
        sizes = [self.encoder.size, *network.hidden]
        out = head_size(spec.action_space)
        self.actor = tower(
            [*sizes, out], network.activation, last_gain=0.01, generator=generator
        )
        self.critic = tower(
            [*sizes, 1], network.activation, last_gain=1.0, generator=generator
        )
        boxes = deviations(spec.action_space)
        self.log_std = (
            nn.Parameter(torch.full((boxes,), network.log_std_init)) if boxes else None
        )
        self.head = head(spec.action_space, squash=network.squash)

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def forward(self, obs: Tree, state: None, start: Tensor) -> Output:
        """[..., *obs] -> Output; state and start do not matter."""
        x = self.encoder(obs)
        return Output(
            self.head(self.actor(x), self.log_std), self.critic(x).squeeze(-1), None
        )


class ImagePolicy(nn.Module):
    """One trunk for an image, and on it two linear heads, an actor and a critic."""

    def __init__(
        self, spec: Spec, network: Network, generator: torch.Generator
    ) -> None:
        """Orthogonal initialisation from `generator`."""
        super().__init__()
        self.spec, self.network = spec, network
        self.encoder: ImageEncoder = encoder_of(spec, network, generator)
        size, out = self.encoder.size, head_size(spec.action_space)
        self.actor = tower(
            [size, out], network.activation, last_gain=0.01, generator=generator
        )
        self.critic = tower(
            [size, 1], network.activation, last_gain=1.0, generator=generator
        )
        boxes = deviations(spec.action_space)
        self.log_std = (
            nn.Parameter(torch.full((boxes,), network.log_std_init)) if boxes else None
        )
        self.head = head(spec.action_space, squash=network.squash)

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def forward(self, obs: Tensor, state: None, start: Tensor) -> Output:
        """[..., *image] -> Output; state and start do not matter."""
        x = self.encoder(obs)
        return Output(
            self.head(self.actor(x), self.log_std), self.critic(x).squeeze(-1), None
        )


class RecurrentPolicy(nn.Module):
    """A tower, a GRU or LSTM whose state is zeroed at each start, and two linear heads."""

    def __init__(
        self, spec: Spec, network: Network, generator: torch.Generator
    ) -> None:
        """Orthogonal initialisation from `generator`."""
        super().__init__()
        self.spec, self.network = spec, network
        self.encoder: Encoder | TreeEncoder | ImageEncoder = encoder_of(
            spec, network, generator
        )
        images = isinstance(self.encoder, ImageEncoder)
        sizes = [self.encoder.size, *(() if images else network.hidden)]
        self.body = tower(
            sizes, network.activation, last_gain=None, generator=generator
        )
        self.lstm = network.recurrent == "lstm"
        cell = nn.LSTMCell if self.lstm else nn.GRUCell
        self.cell: Any = skip_init(cell, sizes[-1], network.recurrent_size)
        for name, parameter in self.cell.named_parameters():
            if name.startswith("weight"):
                nn.init.orthogonal_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)
        out = head_size(spec.action_space)
        self.actor = tower(
            [network.recurrent_size, out], "tanh", last_gain=0.01, generator=generator
        )
        self.critic = tower(
            [network.recurrent_size, 1], "tanh", last_gain=1.0, generator=generator
        )
        boxes = deviations(spec.action_space)
        self.log_std = (
            nn.Parameter(torch.full((boxes,), network.log_std_init)) if boxes else None
        )
        self.head = head(spec.action_space, squash=network.squash)

    def initial_state(self, num_rows: int) -> Tree:
        """Zeros [B, H]: h, or (h, c)."""
        zeros = torch.zeros(
            num_rows, self.network.recurrent_size, device=self.cell.weight_hh.device
        )
        return (zeros, zeros.clone()) if self.lstm else zeros

    def forward(self, obs: Tree, state: Tree, start: Tensor) -> Output:
        """[T, B, *obs], state before step 0, start [T, B] -> Output for every step."""
        x = self.body(self.encoder(obs))
        keep = (~start.bool()).to(x.dtype).unsqueeze(-1)
        outputs: list[Tensor] = []
        for x_t, keep_t in zip(x, keep, strict=True):
            if self.lstm:
                state = self.cell(x_t, (state[0] * keep_t, state[1] * keep_t))
                outputs.append(state[0])
            else:
                state = self.cell(x_t, state * keep_t)
                outputs.append(state)
        hidden = torch.stack(outputs)
        return Output(
            self.head(self.actor(hidden), self.log_std),
            self.critic(hidden).squeeze(-1),
            state,
        )


class PlainPolicy(nn.Module):
    """A user's module `obs [N, ...] -> (logits, value)`, or `(mean, log_std, value)` for Box actions."""

    def __init__(self, module: nn.Module, spec: Spec, *, squash: bool = False) -> None:
        """Wraps `module`; its values may be [N] or [N, 1]. It gets float observations in its parameters' dtype.

        Nested observations reach it as dicts and tuples of tensors [N, ...].
        """
        super().__init__()
        self.module = module
        self.dtype = next(
            (p.dtype for p in module.parameters() if p.is_floating_point()),
            torch.float32,
        )
        self.layout = spec.observation
        self.head = head(spec.action_space, squash=squash)
        self.out, self.boxes = (
            head_size(spec.action_space),
            deviations(spec.action_space),
        )

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def forward(self, obs: Tree, state: None, start: Tensor) -> Output:
        """[T, B, *obs] -> Output."""
        first = self.layout.flat(obs)[0]
        lead = first.shape[: first.dim() - len(self.layout.leaves[0].shape)]

        def flatten(x: Tensor) -> Tensor:
            seen = x.reshape(-1, *x.shape[len(lead) :])
            return seen.to(self.dtype) if seen.is_floating_point() else seen

        given = self.module(map_tree(flatten, obs))
        parts: tuple[Tensor, ...] = (
            tuple(given) if isinstance(given, tuple | list) else (given,)
        )
        logits, value, number = parts[0], parts[-1], lead.numel()
        if (
            len(parts) not in (2, 3)
            or logits.shape != (number, self.out)
            or value.numel() != number
        ):
            raise ConfigError(
                f"the policy gave shapes {[tuple(x.shape) for x in parts]} for {number} observations; "
                f"expected (logits [N, {self.out}], value [N]) or, for Box actions, (mean, log_std, value [N])"
            )
        log_std = (
            parts[1].expand(number, self.boxes).reshape(*lead, -1)
            if len(parts) == 3 and self.boxes
            else None
        )
        return Output(
            self.head(logits.reshape(*lead, -1), log_std), value.reshape(lead), None
        )


def make_policy(spec: Spec, network: Network, seed: int) -> nn.Module:
    """The default policy for a specification, its weights drawn from `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    if network.recurrent != "none":
        return RecurrentPolicy(spec, network, generator)
    kind = ImagePolicy if image_net(spec, network.image) else MlpPolicy
    return kind(spec, network, generator)


def wrap(module: nn.Module | Callable[[Spec], nn.Module], spec: Spec) -> nn.Module:
    """A user's policy in shoal's signature: a factory is called with the spec, a plain module is wrapped."""
    made: Any = module if isinstance(module, nn.Module) else module(spec)
    if not isinstance(made, nn.Module):
        raise ConfigError(
            f"the policy factory returned {type(made).__name__}, expected a torch.nn.Module"
        )
    return made if hasattr(made, "initial_state") else PlainPolicy(made, spec)
