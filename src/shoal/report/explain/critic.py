"""Where the critic was most wrong: what it expected beside what came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shoal.report.explain.visits import Visits
    from shoal.types import Floats


@dataclass(frozen=True, slots=True)
class Wrong:
    """An episode, and the step in it where the critic was most wrong."""

    episode: int
    score: float
    """The episode's return, without a discount."""
    length: int
    error: float
    """Mean of the sizes of its steps' errors."""
    step: int
    expected: float
    came: float


@dataclass(frozen=True, slots=True)
class Criticism:
    """Errors of a critic over all steps."""

    value: Floats
    came: Floats
    """Discounted rewards from each step on."""
    correlation: float
    """Of both, over all steps; NaN where one of them never changes."""
    worst: list[Wrong]
    """All episodes, that with the largest mean error first."""


def criticism_of(visits: Visits, *, gamma: float, scale: float) -> Criticism | None:
    """The critic's values beside discounted rewards; None where the policy has no critic of its own."""
    if not np.any(visits.value):
        return None
    came = visits.to_go(gamma, scale)
    errors = np.abs(visits.value - came)
    returns = visits.returns()
    worst: list[Wrong] = []
    for episode in range(visits.episodes):
        steps = np.flatnonzero(visits.episode == episode)
        at = int(steps[errors[steps].argmax()])
        wrong = Wrong(
            episode,
            float(returns[episode]),
            len(steps),
            float(errors[steps].mean()),
            at - int(steps[0]),
            float(visits.value[at]),
            float(came[at]),
        )
        worst.append(wrong)
    worst.sort(key=lambda one: -one.error)
    correlation = float("nan")
    if visits.value.std() > 0 and came.std() > 0:
        correlation = float(np.corrcoef(visits.value, came)[0, 1])
    return Criticism(visits.value, came, correlation, worst)
