"""Features of states and actions for fitted values: random Fourier features of standardized numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces

from shoal.types import ConfigError, choices, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.memory.data import CheckedEpisode
    from shoal.types import Spec

    Array = NDArray[np.float64]

MOST_NUMBERS = 256
"""Of an observation, of which features are made."""
MOST_PAIRED = 24
"""Numbers whose products are features too."""
FOURIER = 64
"""Cosines of random directions (Rahimi and Recht 2007)."""
NO_VALUES = (
    "asked=Asked(values=False) of shoal.deploy.offline, `--no-values` of `shoal evaluate-offline`, or `values = false` "
    "under [replay] of a criteria file"
)
"""How values are left out, under the names that users know."""
MOST_OPTIONS = 16
"""Of a Discrete action, each of which has weights of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """phi(s, a), of d numbers: a constant, the numbers, their products, and cosines of random directions of them.

    Where the action is one of a few choices, each choice has weights of its own. Observations that are choices
    themselves have a parabola in time each, as in a table.
    """

    shift: Array
    scale: Array
    direction: Array
    """[numbers, FOURIER]; [numbers, 0] for a table."""
    phase: Array
    table: bool
    """Whether observations are choices, so that each has weights of its own."""
    options: int
    """Choices that have weights of their own; 0: the action's numbers stand among the state's."""

    @property
    def size(self) -> int:
        """Numbers of a feature vector."""
        size = len(self.shift)
        paired = size if size <= MOST_PAIRED else 0
        own = 1 + size + paired * (paired + 1) // 2 + len(self.phase)
        own = 3 * (size - 1) if self.table else own
        return own * max(1, self.options)

    def __call__(self, state: Array, action: Array) -> Array:
        """States [..., S] and actions [..., D], or all options of the action, to [..., d]."""
        given = state if self.options else np.concatenate([state, action], -1)
        own = self._of_table(given) if self.table else self._of_numbers(given)
        if not self.options:
            return own
        each = action[..., :, None] * own[..., None, :]
        return each.reshape(*each.shape[:-2], -1)

    @staticmethod
    def _of_table(given: Array) -> Array:
        """Each choice with a parabola in time, which stands last."""
        choice, time = given[..., :-1], given[..., -1:]
        return np.concatenate([choice, choice * time, choice * time**2], -1)

    def _of_numbers(self, given: Array) -> Array:
        """A constant, standardized numbers, their products, and cosines."""
        z = (given - self.shift) / self.scale
        pairs = np.triu_indices(z.shape[-1] if z.shape[-1] <= MOST_PAIRED else 0)
        products = z[..., pairs[0]] * z[..., pairs[1]]
        cosines = np.cos(z @ self.direction + self.phase)
        cosines *= np.sqrt(2 / max(1, len(self.phase)))
        one = np.ones((*z.shape[:-1], 1))
        return np.concatenate([one, z, products, cosines], -1)

    def mean(self, state: Array, action: Array, weight: Array) -> Array:
        """Of states [N, S] the mean [N, d] over actions [N, K, D] of these weights [N, K]."""
        if self.options:  # linear in the action's vector
            return self(state, np.einsum("nk,nkd->nd", weight, action))
        total = np.zeros((len(state), self.size))
        for draw in range(action.shape[1]):
            total += weight[:, draw, None] * self(state, action[:, draw])
        return total


def make_features(
    spec: Spec,
    state: Array,
    action: Array,
    rng: np.random.Generator,
    *,
    width: float = 1.0,
) -> Features:
    """Features for a log whose states [M, S] and actions [M, D] these are; cosines of `width` times the usual."""
    table = all(choices(part) for _, part in leaf_spaces(spec.observation_space))
    space = spec.action_space
    few = isinstance(space, spaces.Discrete) and space.n <= MOST_OPTIONS
    options = action.shape[1] if few else 0
    numbers = state if options else np.concatenate([state, action], 1)
    size = numbers.shape[1]
    if table and options:
        return Features(
            np.zeros(size),
            np.ones(size),
            np.zeros((size, 0)),
            np.zeros(0),
            table=True,
            options=options,
        )
    return features_of_numbers(numbers, rng, options=options, width=width)


def features_of_numbers(
    numbers: Array,
    rng: np.random.Generator,
    *,
    options: int = 0,
    width: float = 1.0,
) -> Features:
    """Features of a log's numbers [M, S], each of which is of as many choices of an action as there are `options`."""
    size = numbers.shape[1]
    shift, scale = numbers.mean(0), numbers.std(0)
    scale = np.where(scale > 1e-8, scale, 1.0)
    some = ((numbers - shift) / scale)[rng.permutation(len(numbers))[:400]]
    apart = np.linalg.norm(some[:, None] - some[None], axis=-1)
    usual = float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0
    direction = rng.standard_normal((size, FOURIER)) / (width * usual)
    phase = rng.uniform(0, 2 * np.pi, FOURIER)
    return Features(shift, scale, direction, phase, table=False, options=options)


def states_of(
    spec: Spec, episodes: Sequence[CheckedEpisode], longest: int
) -> list[Array]:
    """Of each episode its observations as flat numbers [T + 1, S], the last of which is the time.

    Raises:
        ConfigError: more numbers than features can be made of, such as pixels.
    """
    found: list[Array] = []
    parts = [part for _, part in leaf_spaces(spec.observation_space)]
    for episode in episodes:
        columns: list[Array] = []
        for part, values in zip(parts, episode.obs, strict=True):
            flat = values.reshape(len(values), -1)
            options = choices(part)
            if not options:
                columns.append(flat.astype(np.float64))
                continue
            first = np.asarray(getattr(part, "start", 0)).ravel()
            index = flat.astype(np.int64) - first
            columns += [np.eye(n)[index[:, at]] for at, n in enumerate(options)]
        time = np.arange(episode.length + 1)[:, None] / longest
        found.append(np.concatenate([*columns, time], 1))
    size = found[0].shape[1]
    if size > MOST_NUMBERS:
        raise ConfigError(
            f"{spec.env_id}: an observation has {size - 1} numbers, and fitted values are made of {MOST_NUMBERS - 1} "
            f"at most; go by importance sampling alone: {NO_VALUES}"
        )
    return found
