"""Actors beside critics Q(s, a): stochastic ones and deterministic ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from shoal.nets.deterministic import Deterministic
from shoal.nets.distributions import masked
from shoal.nets.encoder import make_encoder
from shoal.nets.given import OutputError, as_floats, dtype_of, forward, rows_of
from shoal.nets.heads import head, head_size
from shoal.nets.images import ImageEncoder
from shoal.nets.layers import tower
from shoal.nets.policy import Output
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.nets.distributions import Distribution
    from shoal.nets.network import ActorCriticNet, Network
    from shoal.types import Spec, Tree

LEAST_LOG_STD, MOST_LOG_STD = -20.0, 2.0
"""Of a Gaussian, before it is squashed (Haarnoja et al. 2018)."""
GIVES_BOTH = "return (mean [N, {size}], log_std [N, {size}]), both before the tanh"
GIVES_LOGITS = "return logits [N, {size}]"
GIVES_ACTION = (
    "return actions [N, {size}] between -1 and 1, which are scaled to the Box"
)


class StochasticActor(nn.Module):
    """A squashed Gaussian over a Box, its deviation given by the observation too; or a choice of a Discrete space."""

    native_towers = True

    def __init__(
        self, spec: Spec, network: ActorCriticNet, generator: torch.Generator
    ) -> None:
        """Orthogonal initialization from `generator`. ConfigError: other actions."""
        super().__init__()
        self.spec, self.network = spec, network
        self.size = box_size(spec, discrete=True)
        self.head = head(spec.action_space, squash=bool(self.size))
        self.encoder = make_encoder(spec, network, generator)
        outputs = 2 * self.size or head_size(spec.action_space)
        sizes = [*sizes_above(self.encoder, network), outputs]
        kind = network.activation
        self.body = tower(sizes, kind, last_gain=0.01, generator=generator)

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def forward(self, obs: Tree, state: None, start: Tensor | None) -> Output:
        """[..., *obs] -> Output, whose value is 0; state and start do not matter."""
        numbers = self.body(self.encoder(obs))
        if not self.size:
            return said(self.head(numbers, None), numbers)
        mean, log_std = numbers.split(self.size, -1)
        return said(self.head(mean, bounded(log_std)), numbers)


class DeterministicActor(nn.Module):
    """One action for each observation, of a Box, with noise around it where it explores."""

    native_towers = True

    def __init__(
        self, spec: Spec, network: ActorCriticNet, generator: torch.Generator
    ) -> None:
        """Orthogonal initialization from `generator`. ConfigError: other actions."""
        super().__init__()
        self.spec, self.network = spec, network
        self.size = box_size(spec, discrete=False)
        self.bounds = bounds_of(spec)
        self.encoder = make_encoder(spec, network, generator)
        sizes = [*sizes_above(self.encoder, network), self.size]
        kind = network.activation
        self.body = tower(sizes, kind, last_gain=0.01, generator=generator)

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def forward(self, obs: Tree, state: None, start: Tensor | None) -> Output:
        """[..., *obs] -> Output, whose value is 0; state and start do not matter."""
        action = self.body(self.encoder(obs)).tanh()
        return said(Deterministic(action, *self.bounds), action)


class PlainActor(nn.Module):
    """A user's module: obs [N, ...] -> (mean, log_std) of a Box, logits of a Discrete space, or actions in [-1, 1]."""

    def __init__(
        self, module: nn.Module, spec: Spec, *, deterministic: bool = False
    ) -> None:
        """Wraps `module`, which gets float observations in its parameters' dtype. ConfigError: other actions."""
        super().__init__()
        self.module, self.layout = module, spec.observation
        self.dtype = dtype_of(module)
        self.size = box_size(spec, discrete=not deterministic)
        self.bounds = bounds_of(spec) if deterministic else None
        self.head = head(spec.action_space, squash=bool(self.size))
        self.shapes = [head_size(spec.action_space)] * (
            2 if self.size and not deterministic else 1
        )
        gives = GIVES_BOTH if len(self.shapes) == 2 else GIVES_LOGITS
        gives = GIVES_ACTION if deterministic else gives
        self.returns = gives.format(size=self.shapes[0])

    def initial_state(self, num_rows: int) -> None:
        """No memory."""
        return

    def forward(self, obs: Tree, state: None, start: Tensor | None) -> Output:
        """[..., *obs] -> Output, whose value is 0."""
        lead, rows = rows_of(obs, self.layout, self.dtype)
        given = forward(self.module, rows, self.layout)
        parts = as_floats(given, self.module, returns=self.returns)
        found = [tuple(part.shape) for part in parts]
        count = math.prod(lead)
        if found != [(count, size) for size in self.shapes]:
            raise OutputError(
                f"the policy {type(self.module).__name__} gave shapes {found} for {count} observations; {self.returns}"
            )
        first = parts[0].reshape(*lead, -1)
        if self.bounds is not None:
            return said(Deterministic(first.clamp(-1, 1), *self.bounds), first)
        if not self.size:
            return said(self.head(first, None), first)
        log_std = bounded(parts[1].reshape(*lead, -1))
        return said(self.head(first, log_std), first)


def said(distribution: Distribution, numbers: Tensor) -> Output:
    """An actor's output: it has no value of its own."""
    return Output(distribution, numbers.new_zeros(numbers.shape[:-1]), None)


def bounded(log_std: Tensor) -> Tensor:
    """A log standard deviation that neither dies out nor explodes."""
    return log_std.clamp(LEAST_LOG_STD, MOST_LOG_STD)


def box_size(spec: Spec, *, discrete: bool) -> int:
    """Components of a Box of actions; 0 for a Discrete space, where those are possible. ConfigError for others."""
    space = spec.action_space
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        return head_size(space)
    if discrete and isinstance(space, spaces.Discrete):
        return 0
    also = " or a Discrete space" if discrete else ""
    advice = "choose an algorithm that has a policy for them (`shoal algos` lists all)"
    if isinstance(space, spaces.Box):
        advice = "wrap the environment (gymnasium.wrappers.RescaleAction bounds, FlattenAction-like wrappers flatten)"
    raise ConfigError(
        f"{spec.env_id}: this algorithm's actor takes a bounded Box of one axis{also}, but the actions are {space}; "
        f"{advice}"
    )


def policy_of(policy: Any, obs: Tree, mask: Tensor | None) -> Any:
    """The distribution that an actor without memory gives for [B, *obs], among the options that `mask` leaves."""
    return masked(policy(obs, None, None).distribution, mask)


def action_noise(spec: Spec, count: int, rng: np.random.Generator) -> Tensor:
    """Standard normal numbers [count, D] for actions of a Box; [count, 0] for others."""
    space = spec.action_space
    size = head_size(space) if isinstance(space, spaces.Box) else 0
    return torch.from_numpy(rng.standard_normal((count, size), np.float32))


def bounds_of(spec: Spec) -> tuple[Tensor, Tensor]:
    """The least and the greatest action of a Box."""
    space = spec.action_space
    assert isinstance(space, spaces.Box)
    return torch.as_tensor(space.low), torch.as_tensor(space.high)


def sizes_above(encoder: nn.Module, network: ActorCriticNet | Network) -> list[int]:
    """Of the layers above an encoder: its numbers, and the hidden ones, which an image's encoder has itself."""
    size: int = encoder.size  # pyright: ignore[reportAssignmentType]
    if isinstance(encoder, ImageEncoder):
        return [size]
    return [size, *network.hidden]


def make_stochastic(spec: Spec, network: ActorCriticNet, seed: int) -> StochasticActor:
    """A stochastic actor, its weights drawn from `seed` alone."""
    return StochasticActor(spec, network, torch.Generator().manual_seed(seed))


def make_deterministic(
    spec: Spec, network: ActorCriticNet, seed: int
) -> DeterministicActor:
    """A deterministic actor, its weights drawn from `seed` alone."""
    return DeterministicActor(spec, network, torch.Generator().manual_seed(seed))
