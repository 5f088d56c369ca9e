"""Explaining a policy: plays episodes, and asks the policy what it looked at in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from shoal.report.explain.counterfactuals import counterfactuals_of
from shoal.report.explain.critic import criticism_of
from shoal.report.explain.decisions import Decisions
from shoal.report.explain.features import Features
from shoal.report.explain.importance import importance_of
from shoal.report.explain.surrogate import surrogate_of
from shoal.report.explain.visits import visit
from shoal.run.beginning import one_torch_thread
from shoal.types import check_ranges

if TYPE_CHECKING:
    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.acting import Acting
    from shoal.report.explain.counterfactuals import Counterfactuals
    from shoal.report.explain.critic import Criticism
    from shoal.report.explain.importance import Importance
    from shoal.report.explain.surrogate import Surrogate
    from shoal.report.explain.visits import Visits
    from shoal.types import Bools, Floats

HELD_OUT = 0.25
"""Of the episodes: those on which the tree is judged."""
LARGE = 512
"""Features, beyond which no values are tried one by one and no tree is fitted: an image's pixels."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How much is played and asked."""

    episodes: int = 20
    """Greedy episodes."""
    states: int = 256
    """Steps of them, evenly spread, of which attributions and changes are computed."""
    points: int = 64
    """On each line of the integrated gradients."""
    depth: int = 4
    """Of the decision tree."""
    feature_names: str = ""
    """Names of the features with commas between; else known ones, or their places."""

    def __post_init__(self) -> None:
        """Refuses what explains nothing."""
        check_ranges(self, episodes=(1, 10_000), states=(1, 100_000))
        check_ranges(self, points=(1, 10_000), depth=(1, 30))


@dataclass(frozen=True, slots=True)
class Values:
    """What a critic's values are of."""

    gamma: float = 0.99
    scale: float | None = 1.0
    """What rewards were multiplied by; None where that changed while the run went on."""


@dataclass(frozen=True)
class Explanation:
    """What is known of why a policy does what it does."""

    features: Features
    decisions: Decisions
    visits: Visits
    at: list[int]
    """The steps that were asked about."""
    seen: Floats
    """The features of all steps [N, F]."""
    importance: Importance
    counterfactuals: Counterfactuals | None
    surrogate: Surrogate | None
    criticism: Criticism | None
    notes: list[str] = field(default_factory=list[str])
    """What is held, left out, or to be kept in mind."""

    def order(self) -> list[int]:
        """The features, the most important first."""
        return np.argsort(-self.importance.share, kind="stable").tolist()


@one_torch_thread()
def explain(
    policy: nn.Module,
    env: VecEnv,
    *,
    acting: Acting,
    asked: Asked,
    values: Values,
    max_steps: int,
) -> Explanation:
    """Explains a policy by greedy episodes.

    Args:
        policy: on the CPU; it is not changed.
        env: rows that are reset here.
        acting: seed and device.
        asked: how much.
        values: what the critic's values are of.
        max_steps: an episode that goes on after as many is cut.

    Raises:
        ConfigError: several agents, an observation without numbers, wrong names, or scikit-learn is not installed.
    """
    features = Features.of(env.spec, asked.feature_names)
    visits = visit(
        policy, env, episodes=asked.episodes, acting=acting, max_steps=max_steps
    )
    decisions = Decisions(policy, features, visits)
    seen = features.matrix(visits.leaves)
    spread = np.linspace(0, len(seen) - 1, min(asked.states, len(seen)))
    at = sorted({int(step) for step in spread.round()})
    notes = _notes(features, visits)
    importance = importance_of(decisions, at, seen.mean(0), points=asked.points)
    changes = surrogate = None
    if seen.shape[1] <= LARGE:
        changes = counterfactuals_of(decisions, at, seen)
        surrogate = _surrogate(decisions, seen, asked, notes)
    else:
        notes.append(
            f"an observation has {seen.shape[1]:,} numbers: saliency maps stand for a table of them, and neither "
            "single changes nor a tree were tried"
        )
    return Explanation(
        features,
        decisions,
        visits,
        at,
        seen,
        importance,
        changes,
        surrogate,
        _criticism(visits, values, notes),
        notes,
    )


def _criticism(visits: Visits, values: Values, notes: list[str]) -> Criticism | None:
    """Where the critic was wrong; None, and a note, where it cannot be told."""
    if values.scale is None:
        notes.append(
            "rewards were divided by their deviation as it was then, so that the critic's values are on a scale "
            "that is not known any more, and are not compared"
        )
        return None
    found = criticism_of(visits, gamma=values.gamma, scale=values.scale)
    if found is None:
        notes.append(
            "the policy has no value of its own (its critics are networks apart), so nothing is said of them"
        )
    return found


def _surrogate(
    decisions: Decisions, seen: Floats, asked: Asked, notes: list[str]
) -> Surrogate | None:
    """The tree; None, and a note, where it could be judged on nothing."""
    visits = decisions.visits
    if not (decisions.discrete or decisions.box):
        notes.append("several actions are chosen at once, to which no tree is fitted")
        return None
    if visits.episodes < 2:
        notes.append("a tree is judged on other episodes than its own: play at least 2")
        return None
    actions = np.stack([np.asarray(action).reshape(-1) for action in visits.action])
    actions = actions.astype(np.float64)
    if decisions.discrete:
        actions = actions[:, 0] - decisions.start
    return surrogate_of(
        seen,
        actions,
        _held_out(visits),
        discrete=decisions.discrete,
        depth=asked.depth,
        features=decisions.features.names,
        actions=decisions.names,
    )


def _held_out(visits: Visits) -> Bools:
    """The steps of the last quarter of the episodes, at least one of them."""
    count = max(1, int(HELD_OUT * visits.episodes))
    return visits.episode >= visits.episodes - count


def _notes(features: Features, visits: Visits) -> list[str]:
    notes: list[str] = []
    if visits.state[0] is not None:
        notes.append(
            "the policy has a memory: what it remembered at each step is held as it was, so that this is about the "
            "present observation alone"
        )
    if features.held:
        named = ", ".join(features.held)
        notes.append(f"choices among the observations are held as they were: {named}")
    if visits.mask is not None:
        notes.append(
            "choices are among the actions that were allowed at each step, whatever is changed; the tree knows of "
            "none that are not"
        )
    return notes
