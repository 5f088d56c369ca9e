"""The step sizes of an optimizer, as they were set and as a guard has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.types import ConfigError

if TYPE_CHECKING:
    import torch


class StepSizes:
    """Who steps with an optimizer has one step size, and a factor before it."""

    def __init__(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Of this optimizer; None: weights that nobody trains."""
        self.optimizer = optimizer
        self._rate_factor = 1.0

    @property
    def owned(self) -> torch.optim.Optimizer:
        """Torch's optimizer; ConfigError where there is none."""
        if self.optimizer is None:
            raise ConfigError("this network has no optimizer")
        return self.optimizer

    @property
    def learning_rate(self) -> float:
        """The step size as it was set, without `rate_factor`."""
        return self.owned.param_groups[0]["lr"] / self._rate_factor

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        for group in self.owned.param_groups:
            group["lr"] = value * self._rate_factor

    @property
    def rate_factor(self) -> float:
        """What step sizes are multiplied by, whoever sets them: 1, or what a guard has made of it, a power of 2."""
        return self._rate_factor

    @rate_factor.setter
    def rate_factor(self, value: float) -> None:
        before, self._rate_factor = self._rate_factor, value
        for group in self.owned.param_groups:
            group["lr"] = group["lr"] / before * value
