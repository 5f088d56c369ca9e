"""Policies of one signature: policy(obs [T, B, ...], state, start [T, B]) -> Output(distribution, value, state)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from shoal.nets.encoder import make_encoder
from shoal.nets.exploration import exploring_head
from shoal.nets.given import (
    OutputError,
    as_floats,
    dtype_of,
    forward,
    made_by,
    rows_of,
)
from shoal.nets.heads import deviations, head, head_size
from shoal.nets.images import ImageEncoder, image_net
from shoal.nets.layers import recurrent_cell, tower, unroll, zero_state
from shoal.nets.network import Network
from shoal.nets.settling import settle
from shoal.types import ConfigError, Spec, Tree, check_room

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.nets.distributions import Distribution
    from shoal.nets.exploration import ExploringHead
    from shoal.nets.heads import Head

    PlainKind = Callable[[nn.Module, Spec], nn.Module]

WEIGHT_BYTES = 16
"""A weight in training: itself, its gradient and an optimizer's two moments, in float32."""


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
        self.log_std = log_std(spec, network, self.actor)
        self.head, self.explore = heads(spec, network)

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def forward(self, obs: Tree, state: None, start: Tensor) -> Output:
        """[..., *obs] -> Output; state and start do not matter."""
        x = self.encoder(obs)
        return Output(
            distribution=distribution_of(self, x),
            value=self.critic(x).squeeze(-1),
            state=None,
        )


class SharedPolicy(nn.Module):
    """One trunk, an image's or of dense layers, and on it two linear heads, an actor and a critic."""

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
        size = sizes[-1]
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
        self.log_std = log_std(spec, network, self.actor)
        self.head, self.explore = heads(spec, network)

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def forward(self, obs: Tree, state: None, start: Tensor) -> Output:
        """[..., *obs] -> Output; state and start do not matter."""
        x = self.body(self.encoder(obs))
        return Output(
            distribution=distribution_of(self, x),
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
        self.log_std = log_std(spec, network, self.actor)
        self.head, self.explore = heads(spec, network)

    def initial_state(self, num_rows: int) -> Tree:
        """Zeros [B, H]: h, or (h, c)."""
        return zero_state(self.cell, num_rows)

    def forward(self, obs: Tree, state: Tree, start: Tensor) -> Output:
        """[T, B, *obs], state before step 0, start [T, B] -> Output for every step."""
        x = self.body(self.encoder(obs))
        hidden, state = unroll(self.cell, x, state, start)
        return Output(
            distribution=distribution_of(self, hidden),
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
        self.dtype = dtype_of(module)
        self.layout = spec.observation
        self.head = head(spec.action_space, squash=squash)
        self.out = head_size(spec.action_space)
        self.boxes = deviations(spec.action_space)

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def forward(self, obs: Tree, state: None, start: Tensor) -> Output:
        """[T, B, *obs] -> Output."""
        lead, rows = rows_of(obs, self.layout, self.dtype)
        given = forward(self.module, rows, self.layout)
        parts = as_floats(given, self.module)
        self._check(parts, math.prod(lead))
        numbers = parts[0].reshape(*lead, -1)
        value = parts[-1].reshape(lead)
        log_std: Tensor | None = None
        if len(parts) == 3 and self.boxes:
            log_std = parts[1].expand(math.prod(lead), self.boxes).reshape(*lead, -1)
        return Output(
            distribution=self.head(numbers, log_std),
            value=value,
            state=None,
        )

    def _check(self, parts: tuple[Tensor, ...], count: int) -> None:
        """OutputError unless the module gave what belongs to `count` observations."""
        numbers, value = parts[0], parts[-1]
        fits = numbers.shape == (count, self.out) and value.numel() == count
        if not fits or len(parts) not in (2, 3):
            raise OutputError(
                f"the policy gave shapes {[tuple(x.shape) for x in parts]} for {count} observations; "
                f"expected (logits [N, {self.out}], value [N]) or, for Box actions, (mean, log_std, value [N])"
            )


def log_std(spec: Spec, network: Network, actor: nn.Sequential) -> nn.Parameter | None:
    """The log standard deviations of Box actions, which depend on no observation; None without Boxes.

    [D], or with `network.sde_interval` [L, D] for each of the L features that the actor's last layer sees.
    """
    boxes = deviations(spec.action_space)
    if not boxes:
        return None
    shape = (boxes,)
    if network.sde_interval:
        last = actor[-1]
        assert isinstance(last, nn.Linear)
        shape = (last.in_features, boxes)
    return nn.Parameter(torch.full(shape, network.log_std_init))


def heads(spec: Spec, network: Network) -> tuple[Head, ExploringHead | None]:
    """What makes distributions of an actor's numbers; the second one where exploration depends on the state."""
    space, interval = spec.action_space, network.sde_interval
    exploring: ExploringHead | None = None
    if interval:
        exploring = exploring_head(space, interval, squash=network.squash)
    return head(space, squash=network.squash), exploring


def distribution_of(
    policy: MlpPolicy | SharedPolicy | RecurrentPolicy, x: Tensor
) -> Distribution:
    """The distribution over actions, from what the actor sees [..., N]."""
    if policy.explore is None or policy.log_std is None:
        return policy.head(policy.actor(x), policy.log_std)
    features = policy.actor[:-1](x)
    return policy.explore(policy.actor[-1](features), policy.log_std, features)


def make_policy(spec: Spec, network: Network, seed: int) -> nn.Module:
    """The default policy for a specification, its weights drawn from `seed` alone.

    ConfigError: `network.share` for an image, whose layers are shared as it is; more than memory has room for.
    """
    _check_room(spec, network)
    generator = torch.Generator().manual_seed(seed)
    if network.recurrent != "none":
        return RecurrentPolicy(spec, network, generator)
    image = bool(image_net(spec, network.image))
    if image and network.share:
        raise ConfigError(
            "the network of an image has one trunk for actor and critic already; leave network.share out"
        )
    kind = SharedPolicy if image or network.share else MlpPolicy
    return kind(spec, network, generator)


def _check_room(spec: Spec, network: Network) -> None:
    """ConfigError where training layers of these widths needs more memory than there is."""
    sizes = [sum(math.prod(leaf.shape) for leaf in spec.observation.leaves)]
    if image_net(spec, network.image):
        sizes.clear()
    sizes += network.hidden
    if network.recurrent != "none":
        sizes += [network.recurrent_size] * 3
    weights = sum(a * b for a, b in pairwise([*sizes, 1]))
    nbytes = weights * WEIGHT_BYTES
    check_room(nbytes, f"layers of {sizes} numbers", "choose smaller hidden layers")


def wrap(
    module: nn.Module | Callable[[Spec], object],
    spec: Spec,
    *,
    plain: PlainKind = PlainPolicy,
) -> nn.Module:
    """A user's policy in shoal's signature: a factory is called with the spec, a plain module is wrapped by `plain`."""
    made = module if isinstance(module, nn.Module) else made_by(module, spec)
    return wrapped(made, spec, "the policy factory", trained=True, plain=plain)


def wrapped(
    made: object,
    spec: Spec,
    factory: str,
    *,
    trained: bool = False,
    plain: PlainKind = PlainPolicy,
) -> nn.Module:
    """What a factory returned in shoal's signature; what has no `initial_state` is wrapped by `plain`.

    Raises:
        ConfigError: it is no module, what it returns is no policy's output, or (`trained`) it cannot learn.
    """
    if not isinstance(made, nn.Module):
        raise ConfigError(
            f"{factory} returned {type(made).__name__}, expected a torch.nn.Module"
        )
    policy = made if hasattr(made, "initial_state") else plain(made, spec)
    settle(policy, spec, trained=trained)
    return policy
