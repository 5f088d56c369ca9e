"""Support: whether a log shows what a policy whose actions are numbers would do."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces

from shoal.deploy.features import features_of_numbers
from shoal.envs.names import action_names
from shoal.types import choices, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.deploy.likelihood import Choices
    from shoal.types import Spec

    Array = NDArray[np.float64]

REACH = 2.0
"""Standard deviations of the log's own noise within which it has tried an action: of normal noise, 95 % of it."""
MOST_OUTSIDE = 0.1
"""Share of the policy's actions that may lie farther out."""
ASKED_NEAR = 500
"""Steps whose nearest other one is looked for."""
NORMAL_MEDIAN = 0.6745
"""The median of a standard normal number's size."""
RIDGE = 1e-6


QUANTILES = 41
"""Of normal noise, by which it is foreseen what clipping leaves of it."""
STEP = 1.1
"""How noise is raised until it would do."""
MOST_NOISE, MOST_SCATTER = 0.4, 0.2
"""Of an action's range: noise of which little of the controller is left, and the scatter that clipping leaves of it."""


@dataclass(frozen=True, slots=True)
class Support:
    """How a log's actions scatter around what their states explain, and how far off a policy's lie."""

    names: tuple[str, ...]
    """Of each number of an action."""
    noise: tuple[float, ...]
    """Standard deviation of each number of an action, in its own units."""
    needed: tuple[float, ...]
    """Noise with which it would have tried all but a tenth of the policy's actions; 0: it has, infinite: none would."""
    outside: float
    """Share of the policy's actions that lie farther out than the log tried."""

    @property
    def enough(self) -> bool:
        """Whether values can be fitted to it."""
        return self.outside <= MOST_OUTSIDE

    def __str__(self) -> str:
        """What the log lacks, and what to do, as a clause."""
        lacks = [place for place, wanted in enumerate(self.needed) if wanted > 0]
        scatter = self._each(lacks, self.noise)
        said = (
            f"{self.outside:.0%} of the policy's actions lie outside what the log tried in such states: the log's "
            f"scatter around what the state explains with a standard deviation of {scatter}, and the policy's differ "
            f"by more than {REACH:g} times that; "
        )
        if not np.isfinite(self.needed).all():
            never = [place for place in lacks if not np.isfinite(self.needed[place])]
            of = " and ".join(self.names[place] for place in never)
            return (
                f"{said}noise that shows them would leave little of the controller, as the range of {of} cuts it off: "
                "judge a policy that is more like the controller"
            )
        return (
            f"{said}record the log again while noise of a standard deviation of about "
            f"{self._each(lacks, self.needed)} is added to the controller's action, or judge a policy that is more "
            "like the controller"
        )

    def _each(self, places: list[int], numbers: tuple[float, ...]) -> str:
        """Numbers of an action by their names, or one of an action of one number without."""
        if len(self.noise) == 1:
            return f"{numbers[0]:.2g}"
        return ", ".join(
            f"{numbers[place]:.2g} ({self.names[place]})" for place in places
        )


def support_of(
    spec: Spec,
    states: Sequence[Array],
    taken: Array,
    acts: Sequence[Choices],
    rng: np.random.Generator,
) -> Support | None:
    """What a log says of the numbers of an action; None where all of them are choices.

    Args:
        spec: of the environment.
        states: of each episode [T + 1, S], the last number of which is the time.
        taken: actions of the log, one after another [M, D].
        acts: what the policy would do.
        rng: draws features, and steps that are compared.
    """
    column, names, low, high = _numbers(spec)
    if not column.any():
        return None
    seen = np.concatenate([state[:-1] for state in states])
    done = taken[:, column]
    features = features_of_numbers(seen, rng)
    phi = features(seen, np.zeros((len(seen), 0)))
    gram = phi.T @ phi
    gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram)
    weight: Array = np.linalg.solve(gram, phi.T @ done).astype(np.float64)
    usual = phi @ weight
    noise = np.minimum(np.median(np.abs(done - usual), axis=0), _apart(seen, done, rng))
    noise /= NORMAL_MEDIAN
    draws = np.concatenate([one.action[:-1][..., column] for one in acts])
    weights = np.concatenate([one.weight[:-1] for one in acts])
    away = np.abs(draws - usual[:, None])
    outside = (away > REACH * noise + 1e-9).any(-1)
    share = float((outside * weights).sum() / weights.sum())
    most = MOST_OUTSIDE / len(
        noise
    )  # of each number, so that it is MOST_OUTSIDE of all
    beyond = (away > REACH * noise + 1e-9).mean((0, 1))
    lacking = (beyond > most) | (beyond == beyond.max())
    needed = [
        _noise_for(usual[:, n], draws[..., n], float(noise[n]), low[n], high[n], most)
        if lacking[n]
        else 0.0
        for n in range(len(noise))
    ]
    return Support(names, tuple(noise.tolist()), tuple(needed), share)


def _noise_for(
    usual: Array, draws: Array, noise: float, low: float, high: float, most: float
) -> float:
    """Noise on what a controller does, clipped to its range, that leaves out a share `most` of a policy's actions.

    Clipping moves the middle of what is tried and narrows it, so that a range may have room for none.
    """
    standard = NormalDist()
    normal = np.array(
        [standard.inv_cdf((n + 0.5) / QUANTILES) for n in range(QUANTILES)]
    )
    least = float(np.quantile(np.abs(draws - usual[:, None]), 1 - most)) / REACH
    found = max(least, noise, 1e-9)
    room = high - low
    while noise <= MOST_SCATTER * room and found <= MOST_NOISE * room:
        done = np.clip(usual[:, None] + found * normal, low, high)
        middle = done.mean(1, keepdims=True)
        scatter = float(np.median(np.abs(done - middle))) / NORMAL_MEDIAN
        away = float(np.quantile(np.abs(draws - middle), 1 - most))
        if away <= STEP * REACH * scatter:
            return STEP * found
        found *= STEP
    return float("inf")


def _numbers(
    spec: Spec,
) -> tuple[NDArray[np.bool_], tuple[str, ...], Array, Array]:
    """Which of an action's flat numbers are none of choices; of these the names, and the bounds."""
    called = iter(action_names(spec))
    found: list[bool] = []
    names: list[str] = []
    low, high = [np.zeros(0)], [np.zeros(0)]
    for _, part in leaf_spaces(spec.action_space):
        options = choices(part)
        own = [next(called, "") for _ in range(int(np.prod(part.shape or ())))]
        if options:
            found += [False] * sum(options)
        else:
            assert isinstance(part, spaces.Box)
            found += [True] * len(own)
            names += own
            low.append(part.low.ravel().astype(np.float64))
            high.append(part.high.ravel().astype(np.float64))
    return np.array(found), tuple(names), np.concatenate(low), np.concatenate(high)


def _apart(seen: Array, done: Array, rng: np.random.Generator) -> Array:
    """The median difference to the action of the most similar state, over the square root of 2.

    A controller that no features express would seem to be noise; near enough, its actions are alike nevertheless.
    """
    scale = seen.std(0)
    z = seen / np.where(scale > 1e-8, scale, 1.0)
    chosen = rng.permutation(len(z))[:ASKED_NEAR]
    squares = np.square(z).sum(1)
    far = squares[None] - 2 * z[chosen] @ z.T
    far[np.arange(len(chosen)), chosen] = np.inf
    near = far.argmin(1)
    difference = np.abs(done[chosen] - done[near]) / np.sqrt(2)
    return np.asarray(np.median(difference, axis=0), np.float64)
