"""Support: whether a log shows what a policy whose actions are numbers would do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces

from shoal.deploy.features import features_of_numbers
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


@dataclass(frozen=True, slots=True)
class Support:
    """How a log's actions scatter around what their states explain, and how far off a policy's lie."""

    noise: tuple[float, ...]
    """Standard deviation of each number of an action, in its own units."""
    needed: tuple[float, ...]
    """Noise of which the log would have tried all but a tenth of the policy's actions."""
    outside: float
    """Share of the policy's actions that lie farther out than the log tried."""

    @property
    def enough(self) -> bool:
        """Whether values can be fitted to it."""
        return self.outside <= MOST_OUTSIDE

    def __str__(self) -> str:
        """What the log lacks, and what to do, as a clause."""
        worst = int(np.argmax(np.divide(self.needed, np.maximum(self.noise, 1e-12))))
        which = f" (its number {worst})" if len(self.noise) > 1 else ""
        wanted = 1.1 * self.needed[worst]
        return (
            f"{self.outside:.0%} of the policy's actions lie outside what the log tried in such states: the log's "
            f"scatter around what the state explains with a standard deviation of {self.noise[worst]:.2g}{which}, and "
            f"the policy's differ by more than {REACH:g} times that; record the log again while noise of a standard "
            f"deviation of about {wanted:.2g} is added to the controller's action, or judge a policy that is more "
            "like the controller"
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
    column = _numbers(spec)
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
    needed = np.quantile(away.reshape(-1, away.shape[-1]), 1 - MOST_OUTSIDE, axis=0)
    share = float((outside * weights).sum() / weights.sum())
    return Support(tuple(noise.tolist()), tuple((needed / REACH).tolist()), share)


def _numbers(spec: Spec) -> NDArray[np.bool_]:
    """Which of an action's flat numbers are none of choices."""
    found: list[bool] = []
    for _, part in leaf_spaces(spec.action_space):
        options = choices(part)
        if options:
            found += [False] * sum(options)
        else:
            assert isinstance(part, spaces.Box)
            found += [True] * int(np.prod(part.shape))
    return np.array(found)


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
