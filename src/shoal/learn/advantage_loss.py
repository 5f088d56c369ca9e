"""The loss of an advantage actor-critic, which algorithms that compute advantages in different ways share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import Tensor

from shoal.learn.losses import targets_of
from shoal.math.losses import masked_mean, policy_gradient_loss, value_loss
from shoal.nets.distributions import masked

if TYPE_CHECKING:
    from shoal.nets.policy import Output
    from shoal.types import Steps


class Coefficients(Protocol):
    """Settings of how the parts of the loss are weighed."""

    @property
    def ent_coef(self) -> float:
        """Of the entropy, which is to grow."""
        ...

    @property
    def vf_coef(self) -> float:
        """Of the values' errors."""
        ...


class AdvantageStatistics(NamedTuple):
    """Means over a batch."""

    policy: Tensor
    value: Tensor
    entropy: Tensor


def advantage_loss(
    output: Output, batch: Steps, cfg: Coefficients
) -> tuple[Tensor, AdvantageStatistics]:
    """-log pi(a|s) A - ent_coef H + vf_coef 0.5 (v - target)^2 (Mnih et al. 2016, arXiv 1602.01783, section 4).

    Args:
        output: what the policy says of the batch.
        batch: steps [T, B] with `advantage` and `target`.
        cfg: how the parts are weighed.
    """
    advantage, target = targets_of(batch)
    chosen = masked(output.distribution, batch.action_mask)
    gradient = policy_gradient_loss(chosen.log_prob(batch.action), advantage)
    policy = masked_mean(gradient, batch.valid)
    value = masked_mean(value_loss(output.value, target), batch.valid)
    entropy = masked_mean(chosen.entropy(), batch.valid)
    loss = policy - cfg.ent_coef * entropy + cfg.vf_coef * value
    return loss, AdvantageStatistics(policy, value, entropy)
