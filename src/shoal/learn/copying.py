"""Copying: a learner takes over what another one has learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.learn.learner import Learner


def take_over(learner: Learner, other: Learner) -> None:
    """Weights, statistics and optimizers of all networks, and how many steps made them; versions stay its own.

    The optimizers go on with the learner's own parameters: one more step of both on one batch gives both the same bits.
    Whoever acts sees the weights after the next publish.

    Raises:
        ConfigError: the other one's networks are of other shapes.
        FloatingPointError: what it has is not finite.
    """
    for name, network in learner.networks.items():
        network.restore(other.networks[name].state())
    learner.updates = other.updates
