"""Fitted values: what a log's states and actions are worth under a policy, by fitted Q evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.deploy.features import make_features, states_of
from shoal.deploy.likelihood import encoded
from shoal.deploy.support import support_of
from shoal.math import fitted_q
from shoal.math.off_policy_evaluation import Estimate, accelerated_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.deploy.likelihood import Choices
    from shoal.deploy.progress import Progress
    from shoal.memory.data import CheckedEpisode
    from shoal.types import Spec

    Array = NDArray[np.float64]

FITTED = "fitted Q evaluation"
FITS = 100
"""Resamples to which values are fitted."""
FOLDS = 2
"""Parts of the log, each of whose values are fitted to the others."""
MOST_OVER = 0.1
"""By how much of the attainable range an estimate may lie outside it."""
WIDTHS = (1.0, 0.5, 2.0, 0.7, 1.4)
"""Of features for actions that are numbers, as shares of the usual: what depends on them is not known."""


class FittedValues:
    """Values of the log's states and actions under the policy."""

    def __init__(
        self,
        spec: Spec,
        episodes: Sequence[CheckedEpisode],
        acts: Sequence[Choices],
        rng: np.random.Generator,
        *,
        gamma: float,
    ) -> None:
        """ValueError where actions are numbers, and the log does not show what the policy's would do."""
        self._gamma, self._rng, self._acts = gamma, rng, acts
        self._lengths = [episode.length for episode in episodes]
        self._longest = max(self._lengths)
        self._spec, self._states = spec, states_of(spec, episodes, self._longest)
        done = [encoded(spec, spec.action.tree(episode.action)) for episode in episodes]
        self._seen = np.concatenate([state[:-1] for state in self._states])
        self._taken = np.concatenate(done)
        self._reward = np.concatenate([episode.reward for episode in episodes])
        support = support_of(spec, self._states, self._taken, acts, rng)
        if support is not None and not support.enough:
            raise ValueError(str(support))
        self._widths = WIDTHS[:1] if support is None else WIDTHS
        self._iterations = fitted_q.iterations_for(self._longest, gamma)
        self._data, self._means = self._made(WIDTHS[0])

    def _made(self, width: float) -> tuple[fitted_q.Transitions, list[Array]]:
        """The log in features of this width, and their means over the policy's actions in each state."""
        features = make_features(
            self._spec, self._seen, self._taken, self._rng, width=width
        )
        means = [
            features.mean(state, act.action, act.weight)
            for state, act in zip(self._states, self._acts, strict=True)
        ]
        for mean in means:
            mean[-1] = 0.0  # where an episode ends, nothing more is returned
        data = fitted_q.Transitions(
            phi=features(self._seen, self._taken),
            next_phi=np.concatenate([mean[1:] for mean in means]),
            reward=self._reward,
            episode=np.repeat(np.arange(len(means)), self._lengths),
            first_phi=np.stack([mean[0] for mean in means]),
        )
        return data, means

    def estimate(self, confidence: float, progress: Progress) -> Estimate:
        """Fitted Q evaluation, its interval over resampled episodes, and over features where actions are numbers.

        Raises:
            ValueError: it diverges, or arrives far from what such rewards can add up to.
        """
        n, fits = len(self._lengths), FITS // len(self._widths)
        means: list[float] = []
        drawn: list[Array] = []
        for number, width in enumerate(self._widths):
            begun = number * fits

            def told(count: int, begun: int = begun) -> None:
                progress.at(f"{FITTED}, {begun + count} of {FITS} resamples")

            mean, some = fitted_q.bootstrapped_values(
                self._made(width)[0] if number else self._data,
                gamma=self._gamma,
                iterations=self._iterations,
                rng=self._rng,
                resamples=fits,
                told=told,
            )
            means.append(mean)
            drawn.append(some)
        mean = float(np.median(means))
        sets = len(self._widths)  # as few as these say little of how far others differ
        low, high = accelerated_interval(
            mean,
            np.concatenate(drawn),
            np.zeros(n),
            confidence=confidence,
            episodes=min(n, sets) if sets > 1 else n,
        )
        low, mean, high = self._attainable(low, mean, high)
        found = Estimate(FITTED, mean, low, high, confidence, float(n))
        progress.done(str(found))
        return found

    def _attainable(
        self, low: float, mean: float, high: float
    ) -> tuple[float, float, float]:
        """An estimate within what the log's rewards can add up to.

        By what its interval lies outside the values are wrong at least, and so the other end moves by as much.
        """
        least, most = fitted_q.value_range(
            self._reward, gamma=self._gamma, longest=self._longest
        )
        over = max(mean - most, 0.0) - max(least - mean, 0.0)
        if abs(over) > MOST_OVER * (most - least):
            raise ValueError(
                f"fitted values arrive at {mean:.4g}, and the log's rewards can add up to {least:.4g} to {most:.4g} "
                "only: the log shows too little of what the policy would do; take one of a controller that varies its "
                "actions more, or of more episodes"
            )
        wide = low - max(high - most, 0.0), mean, high + max(least - low, 0.0)
        ends = np.clip(wide, least, most)
        return float(ends[0]), float(ends[1]), float(ends[2])

    def values(self) -> tuple[Array, Array]:
        """Q [n, T] of the logged steps and v [n, T + 1] of their states, each fitted to the other episodes."""
        n = len(self._lengths)
        fold = self._rng.permutation(n) % FOLDS
        q, v = np.zeros((n, self._longest)), np.zeros((n, self._longest + 1))
        ends = np.cumsum(self._lengths)
        for part in range(FOLDS):
            count = (fold != part).astype(np.float64)
            found = fitted_q.fitted_q_evaluation(
                self._data, count, gamma=self._gamma, iterations=self._iterations
            )
            for row in np.flatnonzero(fold == part).tolist():
                length, end = self._lengths[row], int(ends[row])
                q[row, :length] = self._data.phi[end - length : end] @ found
                v[row, : length + 1] = self._means[row] @ found
        return q, v
