"""Distributions over actions. Sampling is a pure function of noise that the caller draws (Philox), never torch's.

Each kind says which noise it consumes (`noise`: "uniform", "normal" or "joint") and how much (`noise_size` numbers an
action). "joint": `num_uniform` uniform numbers, then normal ones (`nets/joint.py`).
Shapes: parameters [..., A], actions [...] or [..., K], log-probabilities and entropies [...].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch

from shoal.types import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.types import Tree

# Beside any real logit its probability is exactly 0; unlike -inf it leaves p log p and its gradient 0 as well.
NEVER = -1e30
# How near to a bound an action comes whose number before the tanh is asked for: 7.25 there, and 1e-6 of the tanh away.
NEAR_BOUND = 1e-6
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
# Nodes and weights of Gauss-Hermite quadrature with 8 nodes; the other four are their mirror images.
HERMITE_X = (0.3811869902, 1.1571937125, 1.9816567567, 2.9306374203)
HERMITE_W = (0.6611470126, 0.2078023258, 0.0170779830, 0.0001996041)


class Distribution(Protocol):
    """What a policy's output must offer."""

    noise: ClassVar[str]
    noise_size: int

    def sample(self, noise: Tensor) -> Tree:
        """An action from noise [..., noise_size]."""
        ...

    def mode(self) -> Tree:
        """The greedy action."""
        ...

    def log_prob(self, action: Tree) -> Tensor:
        """Log pi(action)."""
        ...

    def entropy(self) -> Tensor:
        """Shannon entropy in nats."""
        ...

    def to_env(self, action: Tree) -> Tree:
        """The action as the environment takes it: offset, clipped or scaled into its space."""
        ...


@runtime_checkable
class Maskable(Protocol):
    """A distribution that can be limited to some of its options."""

    def masked(self, mask: Tensor) -> Distribution:
        """The same among the options where `mask` [..., n] is true."""
        ...


@runtime_checkable
class Invertible(Protocol):
    """A distribution that can tell what it would have kept for an action that the environment took."""

    def from_env(self, action: Tree) -> Tree:
        """The inverse of `to_env`."""
        ...


class Categorical:
    """One choice of n: logits [..., n], actions int64 [...]."""

    noise: ClassVar[str] = "uniform"
    noise_size = 1

    def __init__(self, logits: Tensor, *, start: int = 0) -> None:
        """`start` is the space's first action."""
        self.log_probs = logits.log_softmax(-1)
        self.start = start

    def sample(self, noise: Tensor) -> Tensor:
        """The first choice whose cumulative probability exceeds the noise, which is below 1."""
        below = self.log_probs.exp().cumsum(-1)
        # The sum is 1 but for rounding: scaled by it, the noise stays under it, and no choice of probability 0 is met.
        scaled = noise * below[..., -1:]
        return (below <= scaled).sum(-1)

    def mode(self) -> Tensor:
        """The most probable choice."""
        return self.log_probs.argmax(-1)

    def masked(self, mask: Tensor) -> Categorical:
        """The same among the options where `mask` [..., n] is true; the others have probability 0."""
        return Categorical(self.log_probs.masked_fill(~mask, NEVER), start=self.start)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log pi(action)."""
        chosen = self.log_probs.gather(-1, action.unsqueeze(-1))
        return chosen.squeeze(-1)

    def entropy(self) -> Tensor:
        """-sum p log p, with 0 log 0 = 0."""
        least = torch.finfo(self.log_probs.dtype).min
        return -(self.log_probs.exp() * self.log_probs.clamp(min=least)).sum(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """Counts from the space's start."""
        return action + self.start if self.start else action

    def from_env(self, action: Tensor) -> Tensor:
        """Counts from 0."""
        return action.long() - self.start


class MultiCategorical:
    """K independent choices: logits [..., sum(nvec)], actions int64 [..., K]."""

    noise: ClassVar[str] = "uniform"

    def __init__(self, logits: Tensor, nvec: list[int], *, start: Tensor) -> None:
        """`nvec[k]` is the number of options of choice k, `start` [K] the space's first of each."""
        self.parts = [Categorical(part) for part in logits.split(nvec, dim=-1)]
        self.nvec, self.noise_size = nvec, len(nvec)
        self.start = start

    def sample(self, noise: Tensor) -> Tensor:
        """Each choice from its own number."""
        numbers = noise.split(1, dim=-1)
        pairs = zip(self.parts, numbers, strict=True)
        return torch.stack([part.sample(number) for part, number in pairs], -1)

    def mode(self) -> Tensor:
        """The most probable of each."""
        return torch.stack([part.mode() for part in self.parts], -1)

    def masked(self, mask: Tensor) -> MultiCategorical:
        """The same among the options where `mask` [..., sum(nvec)] is true."""
        log_probs = torch.cat([part.log_probs for part in self.parts], -1)
        allowed = log_probs.masked_fill(~mask, NEVER)
        return MultiCategorical(allowed, self.nvec, start=self.start)

    def log_prob(self, action: Tensor) -> Tensor:
        """Summed over the choices."""
        pairs = zip(self.parts, action.unbind(-1), strict=True)
        return torch.stack([part.log_prob(choice) for part, choice in pairs]).sum(0)

    def entropy(self) -> Tensor:
        """Summed over the choices."""
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def to_env(self, action: Tensor) -> Tensor:
        """Counts from the space's start."""
        return action + self.start

    def from_env(self, action: Tensor) -> Tensor:
        """Counts from 0."""
        return action.long() - self.start


class Normal:
    """A diagonal Gaussian: mean and log_std [..., D]; the environment gets the action clipped to its Box."""

    noise: ClassVar[str] = "normal"

    def __init__(
        self,
        mean: Tensor,
        log_std: Tensor,
        low: Tensor,
        high: Tensor,
    ) -> None:
        """`low` and `high` [D] are the Box's bounds."""
        self.mean = mean
        self.log_std = log_std
        self.low = low
        self.high = high
        self.noise_size = mean.shape[-1]

    def sample(self, noise: Tensor) -> Tensor:
        """Mean + std * noise."""
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Summed over the components."""
        z = (action - self.mean) * (-self.log_std).exp()
        each = -0.5 * z.square() - self.log_std - HALF_LOG_TWO_PI
        return each.sum(-1)

    def entropy(self) -> Tensor:
        """Summed over the components."""
        each = self.log_std + 0.5 + HALF_LOG_TWO_PI
        return each.expand_as(self.mean).sum(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """Clipped to the Box."""
        return action.clamp(self.low, self.high)

    def from_env(self, action: Tensor) -> Tensor:
        """As it is."""
        return action.float()


class SquashedNormal:
    """tanh of a Gaussian, scaled to the Box (Haarnoja et al. 2018, arXiv 1801.01290, appendix C).

    Actions are kept before the tanh, where log-probabilities are exact; `to_env` squashes and scales. The log-density
    is the one of the squashed action in [-1, 1].
    """

    noise: ClassVar[str] = "normal"

    def __init__(
        self,
        mean: Tensor,
        log_std: Tensor,
        low: Tensor,
        high: Tensor,
    ) -> None:
        """`low` and `high` [D] must be finite."""
        self.base = Normal(mean, log_std, low, high)
        self.noise_size = mean.shape[-1]

    def sample(self, noise: Tensor) -> Tensor:
        """The Gaussian's sample, before the tanh."""
        return self.base.sample(noise)

    def mode(self) -> Tensor:
        """The Gaussian's mean, before the tanh."""
        return self.base.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Log N(action) - log |d tanh / d action|."""
        return self.base.log_prob(action) - _log_slope(action).sum(-1)

    def entropy(self) -> Tensor:
        """H(N) + E[log |d tanh|] by Gauss-Hermite quadrature, 8 nodes: within 0.001 up to std 1, 0.03 at std 2."""
        mean = self.base.mean
        scale = self.base.log_std.exp() * math.sqrt(2)
        total = torch.zeros_like(mean)
        for x, weight in zip(HERMITE_X, HERMITE_W, strict=True):
            both = _log_slope(mean + scale * x) + _log_slope(mean - scale * x)
            total = total + weight * both
        expected = total / math.sqrt(math.pi)
        return self.base.entropy() + expected.sum(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """Squashed and scaled to the Box; the clamp catches the last rounding."""
        low = self.base.low
        high = self.base.high
        share = 0.5 * (high - low)
        return (low + share * (action.tanh() + 1)).clamp(low, high)

    def from_env(self, action: Tensor) -> Tensor:
        """Before the tanh: of actions at the bounds, which no finite number gives, the nearest by `NEAR_BOUND`."""
        most = 1 - NEAR_BOUND
        within = place_in(action, self.base.low, self.base.high)
        return within.clamp(-most, most).atanh().float()


def masked(distribution: Distribution, mask: Tensor | None) -> Distribution:
    """The distribution among the options that a mask leaves; itself without a mask.

    ConfigError for a custom distribution without `masked(mask)`.
    """
    if mask is None:
        return distribution
    if not isinstance(distribution, Maskable):
        raise ConfigError(
            f"the actions are masked, but {type(distribution).__name__} has no method masked(mask)"
        )
    return distribution.masked(mask)


def from_env(distribution: Distribution, action: Tree) -> Tree:
    """What a policy with such distributions keeps of actions [..., *shape] that its environment took.

    ConfigError for a custom distribution without `from_env(action)`.
    """
    if not isinstance(distribution, Invertible):
        raise ConfigError(
            f"actions from elsewhere need the method from_env(action), the inverse of to_env(action), which "
            f"{type(distribution).__name__} lacks"
        )
    return distribution.from_env(action)


def place_in(action: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Where actions stand between the bounds of their Box: -1 at the lower, 1 at the upper, 0 where both are equal."""
    low, high = (bound.to(action.device).double() for bound in (low, high))
    half = 0.5 * (high - low)
    return (action.double() - low - half) / torch.where(half > 0, half, 1.0)


def _log_slope(x: Tensor) -> Tensor:
    """log(1 - tanh(x)^2), stable for large |x|."""
    return 2 * (math.log(2) - x - torch.nn.functional.softplus(-2 * x))
