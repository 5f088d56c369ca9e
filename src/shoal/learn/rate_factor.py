"""What all step sizes of a learner are multiplied by, whoever sets them: 1, until a guard makes it less."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.learn.learner import Learner


def rate_factor_of(learner: Learner) -> float:
    """The factor of the policy's step size, which is that of all its networks."""
    return learner.networks["policy"].descent.rate_factor


def set_rate_factor(learner: Learner, factor: float) -> None:
    """Multiplies the step sizes of all networks by `factor`, in the place of the factor until now; a power of 2.

    `learner.learning_rate` and what sets it stay as they are without it. It is part of the learner's state.
    """
    for network in learner.networks.values():
        if network.optimizer is not None:
            network.descent.rate_factor = factor
