"""Learning rates that change as training goes on."""

from __future__ import annotations

LOWEST, HIGHEST = 1e-6, 1e-2


def adapted_rate(learning_rate: float, kl: float, target_kl: float) -> float:
    """The learning rate divided by 1.5 where the KL is over twice the target, multiplied where it is under half.

    It stays between 1e-6 and 1e-2. As the adaptive penalty of Schulman et al. 2017, arXiv 1707.06347, section 4.
    """
    factor = 1.0
    if kl > 2 * target_kl:
        factor = 1 / 1.5
    elif kl < target_kl / 2:
        factor = 1.5
    return min(HIGHEST, max(LOWEST, learning_rate * factor))
