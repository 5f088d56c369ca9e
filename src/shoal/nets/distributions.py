"""Distributions over actions. Sampling is a pure function of noise that the caller draws (Philox), never torch's.

Each kind says which noise it eats (`noise`: "uniform" or "normal") and how much (`noise_size` numbers an action).
Shapes: parameters [..., A], actions [...] or [..., K], log-probabilities and entropies [...].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from gymnasium import spaces

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

HERMITE_X = (0.3811869902, 1.1571937125, 1.9816567567, 2.9306374203)
HERMITE_W = (0.6611470126, 0.2078023258, 0.0170779830, 0.0001996041)


class Distribution(Protocol):
    """What a policy's output must offer."""

    noise: ClassVar[str]
    noise_size: int

    def sample(self, noise: Tensor) -> Tensor:
        """An action from noise [..., noise_size]."""
        ...

    def mode(self) -> Tensor:
        """The greedy action."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Log pi(action)."""
        ...

    def entropy(self) -> Tensor:
        """Shannon entropy in nats."""
        ...

    def to_env(self, action: Tensor) -> Tensor:
        """The action as the environment takes it: offset, clipped or scaled into its space."""
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
        return (below <= noise * below[..., -1:]).sum(-1)

    def mode(self) -> Tensor:
        """The most probable choice."""
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log pi(action)."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """-sum p log p."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """Counts from the space's start."""
        return action + self.start if self.start else action


class MultiCategorical:
    """K independent choices: logits [..., sum(nvec)], actions int64 [..., K]."""

    noise: ClassVar[str] = "uniform"

    def __init__(self, logits: Tensor, nvec: list[int], *, start: Tensor) -> None:
        """`nvec[k]` is the number of options of choice k, `start` [K] the space's first of each."""
        self.parts = [Categorical(part) for part in logits.split(nvec, dim=-1)]
        self.noise_size = len(nvec)
        self.start = start

    def sample(self, noise: Tensor) -> Tensor:
        """Each choice from its own number."""
        return torch.stack([p.sample(noise[..., k : k + 1]) for k, p in enumerate(self.parts)], -1)

    def mode(self) -> Tensor:
        """The most probable of each."""
        return torch.stack([p.mode() for p in self.parts], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Summed over the choices."""
        return torch.stack([p.log_prob(action[..., k]) for k, p in enumerate(self.parts)]).sum(0)

    def entropy(self) -> Tensor:
        """Summed over the choices."""
        return torch.stack([p.entropy() for p in self.parts]).sum(0)

    def to_env(self, action: Tensor) -> Tensor:
        """Counts from the space's start."""
        return action + self.start


class Normal:
    """A diagonal Gaussian: mean and log_std [..., D]; the environment gets the action clipped to its Box."""

    noise: ClassVar[str] = "normal"

    def __init__(self, mean: Tensor, log_std: Tensor, low: Tensor, high: Tensor) -> None:
        """`low` and `high` [D] are the Box's bounds."""
        self.mean, self.log_std, self.low, self.high = mean, log_std, low, high
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
        return (-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Summed over the components."""
        return (self.log_std + 0.5 + 0.5 * math.log(2 * math.pi)).expand_as(self.mean).sum(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """Clipped to the Box."""
        return action.clamp(self.low, self.high)


class SquashedNormal:
    """tanh of a Gaussian, scaled to the Box (Haarnoja et al. 2018, arXiv 1801.01290, appendix C).

    Actions are kept before the tanh, where log-probabilities are exact; `to_env` squashes and scales. The log-density
    is the one of the squashed action in [-1, 1].
    """

    noise: ClassVar[str] = "normal"

    def __init__(self, mean: Tensor, log_std: Tensor, low: Tensor, high: Tensor) -> None:
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
        scale = self.base.log_std.exp() * math.sqrt(2)
        nodes = zip(HERMITE_X, HERMITE_W, strict=True)
        sides = [(w, _log_slope(self.base.mean + scale * x) + _log_slope(self.base.mean - scale * x)) for x, w in nodes]
        expected = sum(w * both for w, both in sides) / math.sqrt(math.pi)
        return self.base.entropy() + torch.as_tensor(expected).sum(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """Squashed and scaled to the Box; the clamp catches the last rounding."""
        low, high = self.base.low, self.base.high
        return (low + 0.5 * (high - low) * (action.tanh() + 1)).clamp(low, high)


def _log_slope(x: Tensor) -> Tensor:
    """log(1 - tanh(x)^2), stable for large |x|."""
    return 2 * (math.log(2) - x - torch.nn.functional.softplus(-2 * x))


def head_size(space: spaces.Space[Any]) -> int:
    """Numbers that a network's head must give for this action space."""
    match space:
        case spaces.Discrete():
            return int(space.n)
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return int(space.nvec.sum())
        case spaces.Box() if len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
            return space.shape[0]
        case _:
            raise ConfigError(
                f"no policy head for the action space {space}; use Discrete, MultiDiscrete or a flat Box of floats"
            )


def head(space: spaces.Space[Any], *, squash: bool) -> Callable[[Tensor, Tensor | None], Distribution]:
    """A function from the head's numbers (and a Box's log_std) to the distribution over `space`."""
    head_size(space)
    match space:
        case spaces.Discrete():
            start = int(space.start)
            return lambda logits, _: Categorical(logits, start=start)
        case spaces.MultiDiscrete():
            nvec, first = [int(n) for n in space.nvec], torch.as_tensor(space.start)
            return lambda logits, _: MultiCategorical(logits, nvec, start=first.to(logits.device))
        case _:
            return _box_head(space, squash=squash)


def _box_head(space: Any, *, squash: bool) -> Callable[[Tensor, Tensor | None], Distribution]:
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    if squash and not bool((low.isfinite() & high.isfinite()).all()):
        raise ConfigError(f"squashing needs a bounded Box, got {space}; set squash=False")
    kind = SquashedNormal if squash else Normal

    def make(mean: Tensor, log_std: Tensor | None) -> Distribution:
        if log_std is None:
            raise ConfigError(f"a policy for {space} must give (mean, log_std, value)")
        return kind(mean, log_std, low.to(mean.device), high.to(mean.device))

    return make
