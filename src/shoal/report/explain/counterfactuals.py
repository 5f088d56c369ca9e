"""Counterfactuals: the smallest change of one feature that changes the greedy action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.report.explain.decisions import Decisions
    from shoal.types import Bools, Floats, Tree

POINTS = 41
"""Values of a feature that are tried, between the smallest and the largest that was seen."""
MOVED = 0.25
"""Of a Box's range (or of what the policy does, where it has none): a component that moves by so much is another
action."""


@dataclass(frozen=True, slots=True)
class Change:
    """One feature changed at one step, and the action with it."""

    step: int
    feature: int
    before: float
    after: float
    size: float
    """In standard deviations of the feature."""
    action: str
    instead: str


@dataclass(frozen=True, slots=True)
class Counterfactuals:
    """The smallest changes at N steps."""

    sizes: Floats
    """[N, F], in standard deviations; inf where no value of the feature changes the action."""
    nearest: list[Change]
    """One of each feature that changes an action: at the step where the least of it does."""


def counterfactuals_of(
    decisions: Decisions, at: Sequence[int], seen: Floats
) -> Counterfactuals:
    """Tries values of one feature after another at steps `at`.

    Args:
        decisions: the policy.
        at: N steps.
        seen: features of all steps [M, F]: their ranges and deviations.
    """
    x = decisions.values(at)
    count, features = x.shape
    low, high = seen.min(0), seen.max(0)
    spread = np.maximum(seen.std(0), 1e-12)
    chosen = decisions.greedy(at, torch.from_numpy(x).float())
    sizes = np.full((count, features), np.inf)
    nearest: list[Change] = []
    where = np.repeat(np.asarray(at), POINTS)
    for feature in range(features):
        if high[feature] - low[feature] <= 1e-9:
            continue
        grid = np.linspace(low[feature], high[feature], POINTS)
        tried = np.repeat(x, POINTS, 0)
        tried[:, feature] = np.tile(grid, count)
        actions = decisions.greedy(where.tolist(), torch.from_numpy(tried).float())
        other = _differ(decisions, actions, _repeated(chosen)).reshape(count, POINTS)
        away = np.abs(grid[None] - x[:, feature : feature + 1]) / spread[feature]
        away[~other] = np.inf
        sizes[:, feature] = away.min(1)
        row = int(sizes[:, feature].argmin())
        if not np.isfinite(sizes[row, feature]):
            continue
        place = int(away[row].argmin())
        change = Change(
            int(at[row]),
            feature,
            float(x[row, feature]),
            float(grid[place]),
            float(sizes[row, feature]),
            decisions.called(_one(chosen, row)),
            decisions.called(_one(actions, row * POINTS + place)),
        )
        nearest.append(change)
    return Counterfactuals(sizes, sorted(nearest, key=lambda change: change.size))


def _differ(decisions: Decisions, one: Tree, other: Tree) -> Bools:
    """Whether actions [N, ...] are others."""
    first, second = _flat(one), _flat(other)
    if not decisions.box:
        return (first != second).any(1)
    space: Any = decisions.features.spec.action_space
    width = (space.high - space.low).reshape(-1)
    seen = second.max(0) - second.min(0)
    width = np.where(np.isfinite(width), width, np.maximum(seen, 1e-9))
    return (np.abs(first - second) > MOVED * width).any(1)


def _flat(tree: Tree) -> Floats:
    """A tree of [N, ...] as one array [N, K]."""
    parts: list[Any] = []

    def take(leaf: Any) -> None:
        if isinstance(leaf, dict):
            for part in leaf.values():
                take(part)
        elif isinstance(leaf, tuple):
            for part in leaf:
                take(part)
        else:
            parts.append(np.asarray(leaf).reshape(len(leaf), -1))

    take(tree)
    return np.concatenate(parts, 1).astype(np.float64)


def _repeated(tree: Tree) -> Tree:
    return torch.from_numpy(np.repeat(_flat(tree), POINTS, 0))


def _one(tree: Tree, row: int) -> Any:
    flat = _flat(tree)[row]
    return flat[0] if len(flat) == 1 else flat
