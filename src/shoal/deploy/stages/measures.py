"""Measures: what simulator, logs, shadow and canary say, beside the numbers that must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shoal.deploy.offline import FITTED
from shoal.deploy.stages.lenient import (
    lenient_canary,
    lenient_replay,
    lenient_shadow,
)
from shoal.run.stage_file import Criterion
from shoal.types import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.deploy.offline import OfflineScore
    from shoal.deploy.stages.criteria import Canary, Criteria, Simulate
    from shoal.deploy.stages.criteria import Replay as ReplayCriteria
    from shoal.deploy.stages.log import Log, Played
    from shoal.run.evaluate import Score

    Array = NDArray[np.float64]

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Measured:
    """Criteria, and what is to be said beside them."""

    criteria: tuple[Criterion, ...]
    notes: tuple[str, ...] = ()


def simulated(
    score: Score,
    wanted: Simulate,
    threshold: float | None,
    limit: float | None = None,
) -> Measured:
    """Greedy episodes in the simulator; `limit`: on their mean cost, that the run was trained under.

    Raises:
        ConfigError: nobody says how much they must return.
    """
    least = wanted.least_return if wanted.least_return is not None else threshold
    if least is None:
        raise ConfigError(
            "the run has no threshold, so that nothing says what its policy must return; write `least_return` into the "
            "table [simulate] of a criteria file"
        )
    spread = f"{len(score.returns)} greedy episodes, standard deviation {score.std:.4g}"
    found = [Criterion("greedy_return", score.mean, float(least))]
    notes = [spread]
    if threshold is not None and least < threshold:
        notes.append(
            f"least_return {least:g} is below the threshold of the run, {threshold:g}: a policy that did not solve the "
            "task holds too."
        )
    if score.costs is not None:
        most = wanted.most_cost if wanted.most_cost is not None else limit
        if most is not None:
            mean = float(score.costs.mean())
            found.append(Criterion("greedy_cost", mean, float(most), least=False))
        notes.append(f"{_spread(score.costs)} of a greedy episode")
    return Measured(tuple(found), tuple(notes))


def replayed(
    score: OfflineScore,
    wanted: ReplayCriteria,
    cost: tuple[OfflineScore, float] | None = None,
) -> Measured:
    """A log of the controller: lower bounds against lower bounds; `cost`: the same of costs, and their bound."""
    best, logged = score.best, score.logged
    bound = logged.low + wanted.least_gain
    criteria = [
        Criterion("lower_bound_of_the_estimated_return", best.low, bound),
        Criterion("logged_episodes", score.episodes, wanted.least_episodes),
    ]
    if (
        best.method != FITTED
    ):  # whose episodes are all of the log's, whatever it is worth
        effective, least = best.effective_episodes, wanted.least_effective_episodes
        criteria.append(Criterion("effective_episodes", effective, least))
    notes = [f"gamma {score.gamma:g}", str(logged), str(best)]
    notes += [*lenient_replay(wanted), *score.warnings]
    if cost is not None:
        of_costs, most = cost
        upper = Criterion(
            "upper_bound_of_the_estimated_cost", of_costs.best.high, most, least=False
        )
        criteria.append(upper)
        notes += [f"costs: {one}" for one in (of_costs.logged, of_costs.best)]
    return Measured(tuple(criteria), tuple(note[:1000] for note in notes))


def shadowed(log: Log, criteria: Criteria) -> Measured:
    """Beside the controller."""
    wanted, episodes = criteria.shadow, log.episodes
    steps = _steps(episodes)
    found = [
        Criterion("episodes", len(episodes), wanted.least_episodes),
        Criterion(
            "agreement",
            sum(x.agreed for x in episodes) / steps,
            wanted.least_agreement,
        ),
        Criterion(
            "distance",
            sum(x.distance for x in episodes) / steps,
            wanted.most_distance,
            least=False,
        ),
        _interventions(episodes, wanted.most_interventions),
    ]
    notes = list(lenient_shadow(wanted))
    costs = _costs(episodes)
    if costs is not None:
        notes.append(f"{_spread(costs)} of an episode of the controller")
    if wanted.most_cost is not None:
        mean = float(_needed(costs, "shadow").mean())
        found.append(
            Criterion("cost_of_the_controller", mean, wanted.most_cost, least=False)
        )
    return _with_drift(found, log, criteria, wanted.most_drifted, notes)


def canaried(log: Log, criteria: Criteria, limit: float | None = None) -> Measured:
    """In a share of the episodes; `limit`: on the mean cost of an episode, that the run was trained under."""
    wanted: Canary = criteria.canary
    sides = {
        who: [one for one in log.episodes if one.acted == who]
        for who in ("policy", "controller")
    }
    found = [
        Criterion(f"episodes_of_the_{who}", len(played), wanted.least_episodes)
        for who, played in sides.items()
    ]
    notes: list[str] = []
    if all(sides.values()):
        own, other = (np.array([x.total for x in played]) for played in sides.values())
        low = float(np.quantile(_gains(own, other), 1 - wanted.confidence))
        found.append(Criterion("gain_at_least", low, -wanted.most_loss))
        notes.append(
            f"mean return {own.mean():.4g} of the policy, {other.mean():.4g} of the controller"
        )
    notes += lenient_canary(wanted)
    found += _cost_of_canary(sides, wanted, limit, notes)
    found.append(_interventions(sides["policy"], wanted.most_interventions))
    return _with_drift(found, log, criteria, wanted.most_drifted, notes)


def _cost_of_canary(
    sides: dict[str, list[Played]],
    wanted: Canary,
    limit: float | None,
    notes: list[str],
) -> list[Criterion]:
    """What the policy's episodes cost, beside the controller's in `notes`; nothing where nobody wants to know."""
    costs = {who: _costs(played) for who, played in sides.items()}
    own = costs["policy"]
    notes += [
        f"{_spread(known)} of an episode of the {who}"
        for who, known in costs.items()
        if known is not None
    ]
    most = wanted.most_cost
    if most is not None:
        own = _needed(own, "canary")
    elif own is None:
        if limit is not None and sides["policy"]:
            notes.append(
                f"Costs were not handed over, so that nothing is said of the limit of {limit:g} on them."
            )
        return []
    most = limit if most is None else most
    if most is None:
        return []
    high = float(np.quantile(_means(own, np.random.default_rng(0)), wanted.confidence))
    return [Criterion("cost_at_most", high, float(most), least=False)]


def _costs(episodes: list[Played]) -> Array | None:
    """What episodes cost; None where one does not say it, or there is none."""
    known = [one.cost for one in episodes if one.cost is not None]
    return np.array(known) if known and len(known) == len(episodes) else None


def _needed(costs: Array | None, stage: str) -> Array:
    if costs is None:
        raise ConfigError(
            f"{stage}.most_cost is asked for, and not every episode of the log says what it cost; hand over "
            f"`cost=` in each {stage}.observe"
        )
    return costs


def _spread(costs: Array) -> str:
    """Costs in a few words, as the beginning of a sentence."""
    return f"mean cost {costs.mean():.4g}, standard deviation {costs.std():.4g}, worst {costs.max():.4g}"


def _gains(own: Array, other: Array) -> Array:
    """Differences of means over resampled episodes of both."""
    rng = np.random.default_rng(0)
    return _means(own, rng) - _means(other, rng)


def _means(side: Array, rng: np.random.Generator) -> Array:
    """Means over resampled episodes."""
    return side[rng.integers(len(side), size=(RESAMPLES, len(side)))].mean(1)


def _interventions(episodes: list[Played], most: float) -> Criterion:
    share = sum(one.interventions for one in episodes) / _steps(episodes)
    return Criterion("interventions_of_the_action_guard", share, most, least=False)


def _steps(episodes: list[Played]) -> int:
    return max(1, sum(one.steps for one in episodes))


def _with_drift(
    found: list[Criterion],
    log: Log,
    criteria: Criteria,
    most: int | None,
    notes: list[str] | None = None,
) -> Measured:
    said = list(notes or [])
    drifts = [] if log.seen is None else log.seen.drifts(criteria.drift)
    alarmed = [one for one in drifts if one.alarmed]
    if log.seen is None:
        said.append("Drift was not watched: training left nothing to compare with.")
    elif not drifts:
        said.append(
            f"Drift: {log.seen.count} observations are too few to say anything."
        )
    else:
        source = log.seen.reference.source
        said.append(f"{len(alarmed)} of {len(drifts)} features drifted from {source}.")
    said += [f"ALARM: {one}" for one in alarmed[:20]]
    if most is not None:
        if not drifts:
            raise ConfigError(
                "most_drifted is asked for, and drift cannot be said: the log has too few observations, or none that "
                "are watched"
            )
        found.append(Criterion("drifted_features", len(alarmed), most, least=False))
    return Measured(tuple(found), tuple(said))
