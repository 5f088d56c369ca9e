"""Learning rates that change as training goes on."""

from __future__ import annotations


def adapted_rate(learning_rate: float, kl: float, target_kl: float) -> float:
    """The learning rate divided by 1.5 where the KL is over twice the target, multiplied where it is under half."""
    factor = 1 / 1.5 if kl > 2 * target_kl else 1.5 if kl < target_kl / 2 else 1.0
    return min(1e-2, max(1e-6, learning_rate * factor))
