"""State-dependent exploration: noise that is a function of what is seen, and stays the same one for some steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces

from shoal.nets.distributions import Normal, SquashedNormal
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from shoal.nets.distributions import Distribution

    ExploringHead = Callable[[Tensor, Tensor, Tensor], Distribution]

LEAST_VARIANCE = 1e-6


class StateDependentNormal(Normal):
    """a = mean(s) + theta^T phi(s) with theta_ld ~ N(0, sigma_ld^2) (Raffin et al. 2021, arXiv 2005.05719, eq. 5).

    For one step it is a Gaussian of the variance sum_l phi_l^2 sigma_ld^2 (eq. 6), here + 1e-6. Only log_std learns
    from the variance: phi is taken as it is.
    """

    def __init__(
        self,
        mean: Tensor,
        log_std: Tensor,
        features: Tensor,
        bounds: tuple[Tensor, Tensor],
        *,
        interval: int,
    ) -> None:
        """`mean` [..., D], `log_std` [L, D], `features` phi [..., L], the Box's `bounds` [D].

        `interval` steps share a theta.
        """
        self.features = features.detach()
        self.std = log_std.exp()
        variance = self.features.square() @ self.std.square()
        super().__init__(mean, 0.5 * (variance + LEAST_VARIANCE).log(), *bounds)
        self.noise_size = log_std.numel()
        self.noise_interval = interval

    def sample(self, noise: Tensor) -> Tensor:
        """From theta / sigma [..., L * D]."""
        theta = self.std * noise.unflatten(-1, self.std.shape)
        return self.mean + (self.features.unsqueeze(-2) @ theta).squeeze(-2)


class SquashedStateDependentNormal(SquashedNormal):
    """The same through tanh, scaled to the Box."""

    def __init__(self, base: StateDependentNormal) -> None:
        """`base` is before the tanh; the Box must be bounded."""
        self.base = base
        self.noise_size = base.noise_size
        self.noise_interval = base.noise_interval


def exploring_head(
    space: spaces.Space[Any], interval: int, *, squash: bool
) -> ExploringHead:
    """A function from the means [..., D], log_std [L, D] and features [..., L] to the distribution over a Box.

    ConfigError: the actions are none, or squashing a Box without bounds.
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ConfigError(
            f"network.sde_interval explores in a Box of one axis, got {space}; leave it out"
        )
    if squash and not space.is_bounded():
        raise ConfigError(
            f"squashing needs a bounded Box, got {space}; set squash=False"
        )
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)

    def make(mean: Tensor, log_std: Tensor, features: Tensor) -> Distribution:
        bounds = low.to(mean.device), high.to(mean.device)
        base = StateDependentNormal(mean, log_std, features, bounds, interval=interval)
        return SquashedStateDependentNormal(base) if squash else base

    return make
