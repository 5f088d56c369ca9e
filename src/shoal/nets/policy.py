"""Policies of one signature: policy(obs [T, B, ...], state, start [T, B]) -> Output(distribution, value, state)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from shoal.nets.encoder import make_encoder
from shoal.nets.heads import deviations, head, head_size
from shoal.nets.images import ImageEncoder, image_net
from shoal.nets.layers import recurrent_cell, tower
from shoal.nets.network import Network
from shoal.nets.settling import settle
from shoal.types import ConfigError, Spec, Tree, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.nets.distributions import Distribution


@dataclass(frozen=True, slots=True)
class Output:
    """What a policy says of [T, B] steps: a distribution over actions, values [T, B], the state after the last step."""

    distribution: Distribution
    value: Tensor
    state: Tree


class MlpPolicy(nn.Module):
    """Two towers, an actor and a critic, that share nothing but the encoder."""

    def __init__(
        self,
        spec: Spec,
        network: Network,
        generator: torch.Generator,
    ) -> None:
        """Orthogonal initialization from `generator`."""
        super().__init__()
        self.spec, self.network = spec, network
        self.encoder = make_encoder(spec, network, generator)
        sizes = [self.encoder.size, *network.hidden]
        out = head_size(spec.action_space)
        kind = network.activation
        self.actor = tower(
            [*sizes, out],
            kind,
            last_gain=0.01,
            generator=generator,
        )
        self.critic = tower(
            [*sizes, 1],
            kind,
            last_gain=1.0,
            generator=generator,
        )
        self.log_std = log_std(spec, network)
        self.head = head(spec.action_space, squash=network.squash)

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def forward(self, obs: Tree, state: None, start: Tensor) -> Output:
        """[..., *obs] -> Output; state and start do not matter."""
        x = self.encoder(obs)
        return Output(
            distribution=self.head(self.actor(x), self.log_std),
            value=self.critic(x).squeeze(-1),
            state=None,
        )


class ImagePolicy(nn.Module):
    """One trunk for an image, and on it two linear heads, an actor and a critic."""

    def __init__(
        self,
        spec: Spec,
        network: Network,
        generator: torch.Generator,
    ) -> None:
        """Orthogonal initialization from `generator`."""
        super().__init__()
        self.spec, self.network = spec, network
        self.encoder = make_encoder(spec, network, generator)
        size = self.encoder.size
        out = head_size(spec.action_space)
        kind = network.activation
        self.actor = tower(
            [size, out],
            kind,
            last_gain=0.01,
            generator=generator,
        )
        self.critic = tower(
            [size, 1],
            kind,
            last_gain=1.0,
            generator=generator,
        )
        self.log_std = log_std(spec, network)
        self.head = head(spec.action_space, squash=network.squash)

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def forward(self, obs: Tensor, state: None, start: Tensor) -> Output:
        """[..., *image] -> Output; state and start do not matter."""
        x = self.encoder(obs)
        return Output(
            distribution=self.head(self.actor(x), self.log_std),
            value=self.critic(x).squeeze(-1),
            state=None,
        )


class RecurrentPolicy(nn.Module):
    """A tower, a GRU or LSTM whose state is zeroed at each start, and two linear heads."""

    def __init__(
        self,
        spec: Spec,
        network: Network,
        generator: torch.Generator,
    ) -> None:
        """Orthogonal initialization from `generator`."""
        super().__init__()
        self.spec, self.network = spec, network
        self.encoder = make_encoder(spec, network, generator)
        sizes = [self.encoder.size]
        if not isinstance(self.encoder, ImageEncoder):
            sizes += network.hidden
        kind = network.activation
        self.body = tower(sizes, kind, last_gain=None, generator=generator)
        self.lstm = network.recurrent == "lstm"
        size = network.recurrent_size
        self.cell = recurrent_cell(network.recurrent, sizes[-1], size, generator)
        out = head_size(spec.action_space)
        self.actor = tower(
            [size, out],
            kind,
            last_gain=0.01,
            generator=generator,
        )
        self.critic = tower(
            [size, 1],
            kind,
            last_gain=1.0,
            generator=generator,
        )
        self.log_std = log_std(spec, network)
        self.head = head(spec.action_space, squash=network.squash)

    def initial_state(self, num_rows: int) -> Tree:
        """Zeros [B, H]: h, or (h, c)."""
        device = self.cell.weight_hh.device
        zeros = torch.zeros(num_rows, self.network.recurrent_size, device=device)
        return (zeros, zeros.clone()) if self.lstm else zeros

    def forward(self, obs: Tree, state: Tree, start: Tensor) -> Output:
        """[T, B, *obs], state before step 0, start [T, B] -> Output for every step."""
        x = self.body(self.encoder(obs))
        keep = (~start.bool()).to(x.dtype).unsqueeze(-1)
        outputs: list[Tensor] = []
        for x_t, keep_t in zip(x, keep, strict=True):
            if self.lstm:
                h, c = state
                state = self.cell(x_t, (h * keep_t, c * keep_t))
                outputs.append(state[0])
            else:
                state = self.cell(x_t, state * keep_t)
                outputs.append(state)
        hidden = torch.stack(outputs)
        return Output(
            distribution=self.head(self.actor(hidden), self.log_std),
            value=self.critic(hidden).squeeze(-1),
            state=state,
        )


class PlainPolicy(nn.Module):
    """A user's module `obs [N, ...] -> (logits, value)`, or `(mean, log_std, value)` for Box actions."""

    def __init__(self, module: nn.Module, spec: Spec, *, squash: bool = False) -> None:
        """Wraps `module`; its values may be [N] or [N, 1]. It gets float observations in its parameters' dtype.

        Nested observations reach it as dicts and tuples of tensors [N, ...].
        """
        super().__init__()
        self.module = module
        self.dtype = torch.float32
        for parameter in module.parameters():
            if parameter.is_floating_point():
                self.dtype = parameter.dtype
                break
        self.layout = spec.observation
        self.head = head(spec.action_space, squash=squash)
        self.out = head_size(spec.action_space)
        self.boxes = deviations(spec.action_space)

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
        parts: tuple[Tensor, ...] = (given,)
        if isinstance(given, tuple | list):
            parts = tuple(given)
        self._check(parts, lead.numel())
        numbers = parts[0].reshape(*lead, -1)
        value = parts[-1].reshape(lead)
        log_std: Tensor | None = None
        if len(parts) == 3 and self.boxes:
            log_std = parts[1].expand(lead.numel(), self.boxes).reshape(*lead, -1)
        return Output(
            distribution=self.head(numbers, log_std),
            value=value,
            state=None,
        )

    def _check(self, parts: tuple[Tensor, ...], count: int) -> None:
        """ConfigError unless the module gave what belongs to `count` observations."""
        numbers, value = parts[0], parts[-1]
        fits = numbers.shape == (count, self.out) and value.numel() == count
        if not fits or len(parts) not in (2, 3):
            raise ConfigError(
                f"the policy gave shapes {[tuple(x.shape) for x in parts]} for {count} observations; "
                f"expected (logits [N, {self.out}], value [N]) or, for Box actions, (mean, log_std, value [N])"
            )


def log_std(spec: Spec, network: Network) -> nn.Parameter | None:
    """The log standard deviations of Box actions, which depend on no observation; None without Boxes."""
    boxes = deviations(spec.action_space)
    if not boxes:
        return None
    return nn.Parameter(torch.full((boxes,), network.log_std_init))


def make_policy(spec: Spec, network: Network, seed: int) -> nn.Module:
    """The default policy for a specification, its weights drawn from `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    if network.recurrent != "none":
        return RecurrentPolicy(spec, network, generator)
    kind = ImagePolicy if image_net(spec, network.image) else MlpPolicy
    return kind(spec, network, generator)


def wrap(module: nn.Module | Callable[[Spec], object], spec: Spec) -> nn.Module:
    """A user's policy in shoal's signature: a factory is called with the spec, a plain module is wrapped."""
    made = module if isinstance(module, nn.Module) else module(spec)
    return wrapped(made, spec, "the policy factory")


def wrapped(made: object, spec: Spec, factory: str) -> nn.Module:
    """What a factory returned in shoal's signature; ConfigError where it is no module."""
    if not isinstance(made, nn.Module):
        raise ConfigError(
            f"{factory} returned {type(made).__name__}, expected a torch.nn.Module"
        )
    policy = made if hasattr(made, "initial_state") else PlainPolicy(made, spec)
    settle(policy, spec)
    return policy
