"""Fitted Q evaluation with linear values: Q(s, a) = w . phi(s, a), by repeated least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


RIDGE = 1e-5
"""In units of a mean squared feature."""
LENGTHS = 4
"""Of the longest episode, that are iterated where gamma asks for more."""


@dataclass(frozen=True, slots=True, eq=False)
class Transitions:
    """M steps of n episodes, each with the features of its state and action, and of what may follow."""

    phi: Array
    """[M, d], of the state and the action taken."""
    next_phi: Array
    """[M, d], the mean over the target policy's actions in the next state; zero where the episode ended."""
    reward: Array
    """[M]"""
    episode: NDArray[np.int64]
    """[M], of which episode each step is, 0 to n - 1."""
    first_phi: Array
    """[n, d], the mean over the target policy's actions in each episode's first state."""

    def __post_init__(self) -> None:
        """ValueError where shapes do not fit or numbers are not finite."""
        steps, size = self.phi.shape
        expected = (steps, size), (steps,), (steps,)
        given = self.next_phi.shape, self.reward.shape, self.episode.shape
        if given != expected or self.first_phi.shape[1:] != (size,):
            raise ValueError(
                f"expected arrays {expected} and first features [n, {size}], got {given} and {self.first_phi.shape}"
            )
        for array in (self.phi, self.next_phi, self.reward, self.first_phi):
            if not np.isfinite(array).all():
                raise ValueError("features and rewards must be finite")


def fitted_q_evaluation(
    data: Transitions,
    count: Array,
    *,
    gamma: float,
    iterations: int,
    ridge: float = RIDGE,
) -> Array:
    """The weights w [d] of Q after `iterations` of least squares (Le et al. 2019, arXiv 1903.08738, algorithm 3).

    w_{k+1} = argmin_w sum c (w . phi - r - gamma w_k . phi')^2 + ridge |w|^2, from w_0 = 0: the value of as many
    steps as there were iterations.

    Args:
        data: of a log, whatever policy took the steps.
        count: [n], how often each episode counts.
        gamma: discount in [0, 1].
        iterations: see `iterations_for`.
        ridge: keeps weights small that the log says little of, in units of a mean squared feature.
    """
    weight = count[data.episode]
    weighted = data.phi * weight[:, None]
    gram = weighted.T @ data.phi
    scale = max(float(np.trace(gram)) / len(gram), 1e-12)
    gram[np.diag_indices_from(gram)] += ridge * scale
    right = np.column_stack([weighted.T @ data.next_phi, weighted.T @ data.reward])
    solved: Array = np.linalg.solve(gram, right).astype(np.float64)
    follow, begin = solved[:, :-1] * gamma, solved[:, -1]
    found = begin
    bound = value_bound(data.reward, gamma=gamma, iterations=iterations)
    for _ in range(iterations - 1):
        after = begin + follow @ found
        reach = np.abs(data.first_phi @ after).max()
        if not np.isfinite(reach) or reach > 10 * bound:
            raise ValueError(
                "fitted Q evaluation diverges on this log, which shows too little of what the policy would do; take "
                "a log of a controller that is more like it or varies its actions more, or a smaller gamma"
            )
        if np.allclose(after, found, rtol=1e-8, atol=1e-12):
            return after
        found = after
    return found


def value_bound(reward: Array, *, gamma: float, iterations: int) -> float:
    """The largest value that rewards of this size can add up to."""
    largest = float(np.abs(reward).max(initial=0.0)) or 1.0
    if gamma == 1:
        return largest * iterations
    return largest * (1 - gamma**iterations) / (1 - gamma)


def iterations_for(longest: int, gamma: float) -> int:
    """Iterations after which more change little: what gamma leaves a 1e-4 of, or four times the longest episode.

    Values as a table of states and times would be right after as many iterations as the longest episode has steps.
    Features that are smooth in time mix its ends, and converge later: stopped there, the values of 60 steps were 2 %
    too small.
    """
    if gamma == 0:
        return 1
    most = LENGTHS * longest
    if gamma < 1:
        most = min(most, int(np.ceil(np.log(1e-4) / np.log(gamma))))
    return max(1, most)


def value_range(reward: Array, *, gamma: float, longest: int) -> tuple[float, float]:
    """The smallest and the largest value that rewards like these add up to in at most `longest` steps."""
    steps = longest if gamma == 1 else (1 - gamma**longest) / (1 - gamma)
    least, most = float(reward.min(initial=0.0)), float(reward.max(initial=0.0))
    return least * steps, most * steps


def bootstrapped_values(
    data: Transitions,
    *,
    gamma: float,
    iterations: int,
    rng: np.random.Generator,
    resamples: int = 100,
    told: Callable[[int], None] | None = None,
) -> tuple[float, Array]:
    """The mean value of first states, and those of fits to resampled episodes [R] (Hao et al. 2021, arXiv 2102.03607).

    Each resample's value is of its own first states, so that their spread over episodes counts too.

    Args:
        data: of a log.
        gamma: discount in [0, 1].
        iterations: as of `fitted_q_evaluation`.
        rng: draws the resamples.
        resamples: of the episodes, with replacement.
        told: called with the number of resamples that are done.

    Raises:
        ValueError: values grow without end.
    """
    n = len(data.first_phi)

    def value(count: Array) -> float:
        found = fitted_q_evaluation(data, count, gamma=gamma, iterations=iterations)
        return float(count @ (data.first_phi @ found) / count.sum())

    mean = value(np.ones(n))
    drawn: list[float] = []
    for count in rng.multinomial(n, np.full(n, 1 / n), resamples).astype(float):
        drawn.append(value(count))
        if told is not None:
            told(len(drawn))
    return mean, np.array(drawn)
