"""Off-policy evaluation: what a policy would return, from episodes that another one played, with intervals.

Notation of Thomas and Brunskill (2016, arXiv 1604.00923): episode i of n has rewards r_t, t = 0 .. T_i - 1, and
rho_t = prod_{s <= t} pi(a_s | s_s) / b(a_s | s_s), the ratio of the target policy to the one that acted. What is
estimated is E_pi[sum_t gamma^t r_t], the discounted return of an episode. All functions are of float64 arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

NORMAL = NormalDist()
BLOCK = 256
"""Resamples at a time, so that memory does not grow with their number."""


@dataclass(frozen=True, slots=True, eq=False)
class Logged:
    """n episodes, padded to the longest one's T steps."""

    reward: Array
    """[n, T], zero behind an episode's end."""
    log_ratio: Array
    """[n, T], log pi - log b of each step's action, zero behind the end; -inf where pi would never do it."""
    q: Array
    """[n, T], a model's value of the step's state and action under pi; zero behind the end."""
    v: Array
    """[n, T + 1], the mean of the model's values over pi's actions, of each state; zero from the end on."""

    def __post_init__(self) -> None:
        """ValueError where shapes do not fit, or a number that should be finite is not."""
        n, steps = self.reward.shape
        shapes = self.log_ratio.shape, self.q.shape, self.v.shape
        if shapes != ((n, steps), (n, steps), (n, steps + 1)):
            raise ValueError(
                f"expected arrays [{n}, {steps}] and values [{n}, {steps + 1}], got {shapes}"
            )
        for array in (self.reward, self.q, self.v):
            if not np.isfinite(array).all():
                raise ValueError("rewards and values must be finite")
        if np.isnan(self.log_ratio).any() or np.isposinf(self.log_ratio).any():
            raise ValueError(
                "a step was taken that the policy which acted never takes: the log names another one"
            )

    @classmethod
    def of(cls, reward: Array, log_ratio: Array) -> Logged:
        """Without a model of values."""
        n, steps = reward.shape
        return cls(reward, log_ratio, np.zeros((n, steps)), np.zeros((n, steps + 1)))


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated return and its interval."""

    method: str
    mean: float
    low: float
    high: float
    confidence: float
    """How often such an interval covers the true return, where its assumptions hold."""
    effective_episodes: float
    """(sum of weights)^2 / sum of their squares: of how many episodes of the target policy the log is worth."""

    def __str__(self) -> str:
        """In a line."""
        share = f"{self.confidence:.0%}"
        return f"{self.method}: {self.mean:.4g}, {share} interval [{self.low:.4g}, {self.high:.4g}]"


class Estimator(Protocol):
    """From a log and how often each episode counts [R, n] to an estimate for each of the R resamples."""

    def __call__(self, log: Logged, count: Array, gamma: float) -> Array:
        """[R]."""
        ...


def cumulative_ratio(log_ratio: Array) -> Array:
    """rho_t [n, T]; behind an episode's end it stays what it was."""
    return np.exp(np.cumsum(log_ratio, axis=1))


def effective_episodes(log_ratio: Array) -> float:
    """(sum w)^2 / sum w^2 of the whole episodes' ratios w; 0 where all of them are 0."""
    weight = cumulative_ratio(log_ratio)[:, -1]
    largest = weight.max(initial=0.0)
    if largest == 0:
        return 0.0
    scaled = weight / largest  # squares of large ratios overflow
    return float(scaled.sum() ** 2 / np.square(scaled).sum())


def importance_sampling(log: Logged, count: Array, gamma: float) -> Array:
    """1/n sum_i rho_{T-1} sum_t gamma^t r_t: without bias, and of a variance that grows with the episodes' length."""
    returns = log.reward @ _discounts(log, gamma)
    weight = cumulative_ratio(log.log_ratio)[:, -1]
    return count @ (weight * returns) / count.sum(1)


def weighted_importance_sampling(log: Logged, count: Array, gamma: float) -> Array:
    """sum_i w_i sum_t gamma^t r_t with w_i = rho_{T-1} / sum_j rho_{T-1} (Precup et al. 2000)."""
    returns = log.reward @ _discounts(log, gamma)
    weight = cumulative_ratio(log.log_ratio)[:, -1]
    return _share(count @ (weight * returns), count @ weight)


def per_decision_weighted_importance_sampling(
    log: Logged, count: Array, gamma: float
) -> Array:
    """sum_t gamma^t sum_i w_it r_t with w_it = rho_t / sum_j rho_jt: a reward is not weighed by what came after it."""
    weight = cumulative_ratio(log.log_ratio)
    shares = _share(count @ (weight * log.reward), count @ weight)
    return shares @ _discounts(log, gamma)


def doubly_robust(log: Logged, count: Array, gamma: float) -> Array:
    """v(s_0) + sum_t gamma^t rho_t (r_t + gamma v(s_{t+1}) - q(s_t, a_t)), its mean (Jiang and Li 2016).

    Without bias where the ratios or the values are right; small where both are.
    """
    weight = cumulative_ratio(log.log_ratio)
    error = log.reward + gamma * log.v[:, 1:] - log.q
    each = log.v[:, 0] + (weight * error) @ _discounts(log, gamma)
    return count @ each / count.sum(1)


def weighted_doubly_robust(log: Logged, count: Array, gamma: float) -> Array:
    """The same with w_it = rho_t / sum_j rho_jt (Thomas and Brunskill 2016, arXiv 1604.00923, section 5).

    mean v(s_0) + sum_t gamma^t sum_i w_it (r_t + gamma v(s_{t+1}) - q(s_t, a_t)).
    """
    weight = cumulative_ratio(log.log_ratio)
    error = log.reward + gamma * log.v[:, 1:] - log.q
    shares = _share(count @ (weight * error), count @ weight)
    return count @ log.v[:, 0] / count.sum(1) + shares @ _discounts(log, gamma)


def direct_method(log: Logged, count: Array, gamma: float) -> Array:
    """The mean of the model's values of first states: right as far as the model is."""
    return count @ log.v[:, 0] / count.sum(1)


ESTIMATORS: dict[str, Estimator] = {
    "importance sampling": importance_sampling,
    "weighted importance sampling": weighted_importance_sampling,
    "per-decision weighted importance sampling": per_decision_weighted_importance_sampling,
    "doubly robust": doubly_robust,
    "weighted doubly robust": weighted_doubly_robust,
}
"""By the names that reports give them."""


def bootstrap(
    method: str,
    log: Logged,
    *,
    gamma: float,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Estimate:
    """An estimate with a bias-corrected and accelerated bootstrap interval over episodes (Efron 1987).

    The interval is expanded for as few episodes as the log is worth of the policy (Hesterberg 2015, arXiv 1411.5279,
    section 4.1.3): resamples of n scatter too little by (n - 1) / n, and so few call for Student's distribution.

    Args:
        method: a key of ESTIMATORS.
        log: episodes that were drawn independently.
        gamma: discount in [0, 1].
        rng: draws the resamples.
        confidence: of the interval.
        resamples: of the episodes, with replacement.

    Raises:
        ValueError: an unknown method, fewer than two episodes, or numbers outside their ranges.
    """
    if method not in ESTIMATORS:
        raise ValueError(
            f"method must be one of {', '.join(ESTIMATORS)}, got {method!r}"
        )
    n = len(log.reward)
    check_interval(n, gamma=gamma, confidence=confidence, resamples=resamples)
    estimator = ESTIMATORS[method]
    mean = float(estimator(log, np.ones((1, n)), gamma)[0])
    drawn = [
        estimator(log, rng.multinomial(n, np.full(n, 1 / n), size).astype(float), gamma)
        for size in _blocks(resamples)
    ]
    left_out = np.concatenate(
        [estimator(log, _without(rows, n), gamma) for rows in _ranges(n)]
    )
    effective = effective_episodes(log.log_ratio)
    low, high = accelerated_interval(
        mean,
        np.concatenate(drawn),
        left_out,
        confidence=confidence,
        episodes=effective,
    )
    return Estimate(method, mean, low, high, confidence, effective)


def accelerated_interval(
    mean: float,
    drawn: Array,
    left_out: Array,
    *,
    confidence: float,
    episodes: float,
) -> tuple[float, float]:
    """Quantiles of resampled estimates, moved by their bias and by how the deviation changes with the mean.

    Args:
        mean: the estimate.
        drawn: [R], of the resamples.
        left_out: [n], with each episode left out once (jackknife).
        confidence: of the interval.
        episodes: how many the estimate rests on; fewer make it wider.
    """
    if np.ptp(drawn) == 0:
        return float(drawn[0]), float(drawn[0])
    below = np.mean(drawn < mean) + 0.5 * np.mean(drawn == mean)
    most = 1 - 0.5 / len(drawn)
    bias = normal_quantile(float(np.clip(below, 1 - most, most)))
    influence = left_out.mean() - left_out
    spread = np.square(influence).sum() ** 1.5
    acceleration = np.power(influence, 3).sum() / (6 * spread) if spread else 0.0
    n = max(episodes, 2.0)
    wide = student_quantile(0.5 + confidence / 2, n - 1) * math.sqrt(n / (n - 1))
    ends: list[float] = []
    for side in (-1, 1):
        z = bias + side * wide
        moved = bias + z / max(1 - acceleration * z, 1e-6)
        ends.append(float(np.quantile(drawn, normal_share(moved))))
    return ends[0], ends[1]


def normal_share(z: float) -> float:
    """Of a standard normal number, the probability of being below z."""
    return NORMAL.cdf(z)


def normal_quantile(share: float) -> float:
    """The inverse of `normal_share`."""
    return NORMAL.inv_cdf(share)


def student_quantile(share: float, degrees: float) -> float:
    """The number below which Student's t lies with this probability; `degrees` of freedom, at least 1.

    By the expansion around the normal quantile (Abramowitz and Stegun 1964, 26.7.5): right within 0.5 % of the
    quantile from 4 degrees on where `share` is at most 0.975, below that too small.
    """
    z = normal_quantile(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / degrees**k for k, term in enumerate(terms, 1))


def check_interval(
    episodes: int, *, gamma: float, confidence: float, resamples: int
) -> None:
    """ValueError for numbers outside their ranges."""
    if episodes < 2:
        raise ValueError(f"an interval needs two episodes or more, got {episodes}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    if resamples < 10:
        raise ValueError(f"resamples must be at least 10, got {resamples}")


def _discounts(log: Logged, gamma: float) -> Array:
    return gamma ** np.arange(log.reward.shape[1])


def _share(total: Array, weight: Array) -> Array:
    """Total / weight; 0 where nothing has weight."""
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)


def _blocks(count: int) -> list[int]:
    full, rest = divmod(count, BLOCK)
    return [BLOCK] * full + [rest] * bool(rest)


def _ranges(n: int) -> list[range]:
    return [range(at, min(at + BLOCK, n)) for at in range(0, n, BLOCK)]


def _without(rows: range, n: int) -> Array:
    """How often each of n episodes counts where one of `rows` is left out."""
    count = np.ones((len(rows), n))
    count[np.arange(len(rows)), np.array(rows)] = 0
    return count
