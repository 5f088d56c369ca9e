"""Offline evaluation: what a policy would return, from a log of episodes that others played."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.deploy.features import NO_VALUES
from shoal.deploy.fitted_values import FITS, FITTED, FittedValues
from shoal.deploy.likelihood import choices_of
from shoal.deploy.progress import Progress
from shoal.math.off_policy_evaluation import (
    Estimate,
    Logged,
    bootstrap,
    check_interval,
)
from shoal.memory.data import read_episodes
from shoal.memory.log_checks import Expected, check_log
from shoal.types import ConfigError, check_seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from shoal.deploy.likelihood import Choices
    from shoal.memory.data import CheckedEpisode
    from shoal.types import Spec

    Array = NDArray[np.float64]

METHODS = (
    "weighted importance sampling",
    "per-decision weighted importance sampling",
    "doubly robust",
    "weighted doubly robust",
)
GO_BY = "per-decision weighted importance sampling"
FEW_EPISODES = 20.0
"""Effective ones, below which importance sampling says little."""
SHORT_HORIZON = 0.2
"""Of the log's mean episode; a gamma that looks less far ahead cuts the task."""


@dataclass(frozen=True, slots=True)
class OfflineScore:
    """Estimates of a policy's mean discounted return."""

    estimates: tuple[Estimate, ...]
    logged: Estimate
    """What the log's own episodes returned."""
    episodes: int
    gamma: float
    warnings: tuple[str, ...]
    """What weakens the estimates, in sentences."""

    @property
    def best(self) -> Estimate:
        """The estimate to go by: per-decision importance sampling, or fitted Q where the log is worth few episodes.

        Of the methods whose intervals cover as often as they say, the first one has the narrowest.
        """
        by_name = {one.method: one for one in self.estimates}
        weighted = by_name.get(GO_BY)
        fitted = by_name.get(FITTED)
        if weighted is not None and weighted.effective_episodes >= FEW_EPISODES:
            return weighted
        return fitted or weighted or self.estimates[0]

    @property
    def reliable(self) -> bool:
        """Whether there is an estimate to go by: `best` is one of values, or of a log that is worth enough episodes."""
        by_values = self.best.method == FITTED
        return by_values or self.best.effective_episodes >= FEW_EPISODES

    def __str__(self) -> str:
        """A line for each."""
        lines = [f"{self.episodes} episodes, gamma {self.gamma:g}", str(self.logged)]
        lines += map(str, self.estimates)
        return "\n".join([*lines, *self.warnings])


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a log."""

    gamma: float = 0.99
    """Discount in [0, 1]."""
    greedy: bool = True
    """Whether the policy would take the mode of its distribution."""
    values: bool = True
    """Fit values of states and actions, which doubly robust estimates and fitted Q evaluation need."""
    confidence: float = 0.95
    """Of the intervals."""
    seed: int = 0
    """Of resamples and features."""
    expected: Expected = field(default_factory=Expected)
    """What the log must say of rates and units."""
    costs: bool = False
    """Estimate what episodes cost, in the place of what they return."""


def evaluate_offline(
    policy: nn.Module,
    spec: Spec,
    folder: Path,
    asked: Asked | None = None,
    *,
    behavior: nn.Module | None = None,
    progress: Progress | None = None,
) -> OfflineScore:
    """Estimates of the mean discounted return of an episode, each with an interval over episodes.

    A log's episode ends where it was terminated or truncated, as `evaluate` counts episodes.

    Args:
        policy: the one that is asked about.
        spec: of the environment.
        folder: a data set in Minari's layout.
        asked: of it; None: the defaults.
        behavior: the policy that acted, drawing its actions; None: as the log says how likely its actions were.
        progress: says how far it is; None: on stderr.

    Raises:
        ConfigError: a log of other spaces, units or rates, or damaged; no way to any estimate; too few episodes.
    """
    asked, progress = asked or Asked(), progress or Progress("off-policy evaluation")
    gamma, confidence = asked.gamma, asked.confidence
    file, episodes = read_episodes(folder, spec)
    check_log(file, episodes, spec, asked.expected)
    if asked.costs:
        episodes = [episode.with_costs() for episode in episodes]
    try:
        check_interval(
            len(episodes), gamma=gamma, confidence=confidence, resamples=FITS
        )
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from error
    check_seed(asked.seed)
    rng = np.random.default_rng(asked.seed)
    acts: list[Choices] = []
    for act in choices_of(policy, spec, episodes, greedy=asked.greedy, rng=rng):
        acts.append(act)
        progress.at(
            f"what the policy would do, {len(acts)} of {len(episodes)} episodes"
        )
    ratios = _ratios(episodes, acts, spec, behavior, rng)
    if ratios is None and not asked.values:
        raise ConfigError(
            f"{folder}: {_no_ratios(acts)}; or let fitted Q evaluation do without: leave out {NO_VALUES}"
        )
    terms = _Terms(gamma, confidence, rng, progress)
    return _scored(spec, episodes, acts, ratios, terms, values=asked.values)


@dataclass(frozen=True, slots=True)
class _Terms:
    """How estimates are made."""

    gamma: float
    confidence: float
    rng: np.random.Generator
    progress: Progress

    def interval(self, method: str, log: Logged) -> Estimate:
        """An importance-weighted estimate."""
        gamma, rng, confidence = self.gamma, self.rng, self.confidence
        return bootstrap(method, log, gamma=gamma, rng=rng, confidence=confidence)


def _scored(
    spec: Spec,
    episodes: Sequence[CheckedEpisode],
    acts: Sequence[Choices],
    ratios: list[Array] | None,
    terms: _Terms,
    *,
    values: bool,
) -> OfflineScore:
    longest = max(episode.length for episode in episodes)
    reward = _rows([episode.reward for episode in episodes], longest)
    own = terms.interval(METHODS[0], Logged.of(reward, np.zeros_like(reward)))
    logged = Estimate(
        "the log's own episodes",
        own.mean,
        own.low,
        own.high,
        own.confidence,
        len(episodes),
    )
    estimates: list[Estimate] = []
    warnings = list(_short(terms.gamma, episodes))
    q, v = np.zeros_like(reward), np.zeros((len(reward), longest + 1))
    if values:
        try:
            fitted = FittedValues(spec, episodes, acts, terms.rng, gamma=terms.gamma)
            estimates.append(fitted.estimate(terms.confidence, terms.progress))
            q, v = fitted.values()
        except ValueError as error:
            warnings.append(f"Fitted Q evaluation is left out: {error}.")
            values = False
    if ratios is None:
        warnings.append(f"No importance sampling: {_no_ratios(acts)}.")
    else:
        log = Logged(reward, _rows(ratios, longest), q, v)
        methods = METHODS if values else METHODS[:2]
        weighted: list[Estimate] = []
        for method in methods:
            weighted.append(terms.interval(method, log))
            terms.progress.done(str(weighted[-1]))
        estimates += weighted
        effective = weighted[0].effective_episodes
        if effective < FEW_EPISODES:
            todo = (
                "go by fitted Q evaluation, or"
                if values
                else "no estimate is to go by;"
            )
            warnings.append(
                f"The log is worth {effective:.1f} episodes of this policy of {len(episodes)} (fewer than "
                f"{FEW_EPISODES:.0f}): {todo} record a policy that is more like it, or more episodes."
            )
    if not estimates:
        raise ConfigError(" ".join(warnings))
    return OfflineScore(
        tuple(estimates), logged, len(episodes), terms.gamma, tuple(warnings)
    )


def _short(gamma: float, episodes: Sequence[CheckedEpisode]) -> Iterator[str]:
    """That gamma cuts the task, where it does."""
    mean = float(np.mean([episode.length for episode in episodes]))
    ahead = mean if gamma == 1 else 1 / (1 - gamma)
    if ahead < SHORT_HORIZON * mean:
        longer = 1 - 1 / max(2.0, mean)
        yield (
            f"gamma {gamma:g} looks about {ahead:.3g} steps ahead (1 / (1 - gamma)), and the log's episodes have "
            f"{mean:.3g}: what comes later hardly counts; with gamma {longer:.3g} whole episodes would."
        )


def _ratios(
    episodes: Sequence[CheckedEpisode],
    acts: Sequence[Choices],
    spec: Spec,
    behavior: nn.Module | None,
    rng: np.random.Generator,
) -> list[Array] | None:
    """Log pi - log b of each episode's actions; None where one of them is not known."""
    told: list[Any] = [episode.behavior_log_prob for episode in episodes]
    if behavior is not None:
        acted = choices_of(behavior, spec, episodes, greedy=False, rng=rng)
        told = [one.log_prob for one in acted]
    found: list[Array] = []
    for number, (one, other) in enumerate(zip(acts, told, strict=True)):
        if one.log_prob is None or other is None:
            return None
        if not np.isfinite(other).all():
            step = int(np.flatnonzero(~np.isfinite(other))[0])
            raise ConfigError(
                f"episode {number}: the action of step {step} is one that the policy which acted never takes; name the "
                "run that this log is of"
            )
        found.append(one.log_prob - other)
    return found


def _no_ratios(acts: Sequence[Choices]) -> str:
    if acts[0].log_prob is None:
        return (
            "a policy that always takes one action of a Box has no probabilities to compare (greedy=False, `--sample`, "
            "draws from it)"
        )
    return (
        "the log does not say how likely its actions were; name the run that acted, drawing its actions (behavior=, "
        "`--behavior RUN`), or where actions are choices record with `shoal record --sample`, which writes it"
    )


def _rows(parts: Sequence[Array], longest: int) -> Array:
    """Numbers of episodes [n, longest], zero behind their ends."""
    made = np.zeros((len(parts), longest))
    for row, part in zip(made, parts, strict=True):
        row[: len(part)] = part
    return made
