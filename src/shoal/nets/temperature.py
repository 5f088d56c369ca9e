"""The temperature of maximum-entropy learning: what a unit of entropy is worth, learned or fixed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.types import Spec


class Temperature(nn.Module):
    """A positive number, kept as its logarithm (Haarnoja et al. 2018, arXiv 1812.05905, section 5)."""

    native_towers = True

    def __init__(self, value: float, target_entropy: float) -> None:
        """`value` is the one at first, `target_entropy` in nats what learning brings the policy's entropy to."""
        super().__init__()
        self.log = nn.Parameter(torch.full((1,), math.log(value)))
        self.target_entropy = target_entropy

    def forward(self) -> Tensor:
        """The temperature [1], without gradients."""
        return self.log.detach().exp()

    def loss(self, entropy: Tensor) -> Tensor:
        """log(temperature) * (entropy - target): it rises while the policy's entropy is below the target."""
        return (self.log * (entropy - self.target_entropy)).sum()


class TemperatureStatistics(NamedTuple):
    """The temperature before the step."""

    temperature: Tensor


def temperature_loss(
    networks: Mapping[str, Any], entropy: Tensor, cfg: object
) -> tuple[Tensor, TemperatureStatistics]:
    """The loss of the learner's `temperature` (Haarnoja et al. 2018, arXiv 1812.05905, eq. 18), in its logarithm."""
    temperature = networks["temperature"]
    return temperature.loss(entropy), TemperatureStatistics(temperature())


def make_temperature(
    spec: Spec, value: float, target_entropy: float | None
) -> Temperature:
    """A temperature for the actions of `spec`; without a `target_entropy` it aims at the usual one."""
    aim = usual_entropy(spec) if target_entropy is None else target_entropy
    return Temperature(value, aim)


def usual_entropy(spec: Spec) -> float:
    """Minus the dimensions of a Box; of n options half of the greatest entropy, 0.5 log n."""
    space = spec.action_space
    if isinstance(space, spaces.Discrete):
        return 0.5 * math.log(int(space.n))
    return -float(math.prod(spec.action.single.shape))
