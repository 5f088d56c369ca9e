"""Surrogates: a small decision tree that does what the policy does, and how often it does, in states it never saw."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.types import Bools, Floats


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A tree of rules and its fidelity."""

    rules: str
    """The tree as text, a line a rule."""
    fidelity: float
    """On held-out episodes: the share of steps where it chooses as the policy (R² for numbers)."""
    measure: str
    """What the fidelity is, in words."""
    plain: float
    """The fidelity of always choosing what is chosen most; for numbers 0, that of their mean."""
    depth: int
    leaves: int
    trained_on: int
    """Steps."""
    held_out: int


def surrogate_of(
    x: Floats,
    action: Floats,
    held_out: Bools,
    *,
    discrete: bool,
    depth: int,
    features: Sequence[str],
    actions: Sequence[str],
) -> Surrogate:
    """Fits a tree to what a policy did.

    Args:
        x: features of steps [N, F].
        action: what was chosen [N], or [N, K] of numbers.
        held_out: the steps [N] on which the tree is judged, of other episodes than those that it is fitted to.
        discrete: whether actions are choices.
        depth: of the tree, at most.
        features: their names.
        actions: names of the options of a choice, or of the numbers of an action.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    trees = _library()
    kind = trees.DecisionTreeClassifier if discrete else trees.DecisionTreeRegressor
    least = max(1, int((~held_out).sum()) // 500)
    tree = kind(max_depth=depth, min_samples_leaf=least, random_state=0)
    tree.fit(x[~held_out], action[~held_out])
    said, truth = tree.predict(x[held_out]), action[held_out]
    if discrete:
        fidelity = float((said == truth).mean())
        values, counts = np.unique(action[~held_out], return_counts=True)
        plain = float((truth == values[counts.argmax()]).mean())
        measure = "of held-out steps with the policy's own choice"
        chosen = tree.tree_.value[:, 0].argmax(1)
        said_at = [actions[int(tree.classes_[number])] for number in chosen]
    else:
        said = said.reshape(truth.shape)
        off = float(((said - truth) ** 2).sum())
        spread = float(((truth - truth.mean(0)) ** 2).sum())
        fidelity = 1 - off / max(spread, 1e-12)
        plain, measure = 0.0, "R² on held-out steps"
        said_at = [_numbers(actions, np.ravel(node)) for node in tree.tree_.value]
    lines, leaves = _rules(tree.tree_, 0, features, said_at)
    return Surrogate(
        "\n".join(lines),
        fidelity,
        measure,
        plain,
        int(tree.get_depth()),
        leaves,
        int((~held_out).sum()),
        int(held_out.sum()),
    )


def _numbers(names: Sequence[str], numbers: Floats) -> str:
    """An action by the names of its numbers."""
    told = zip(names, numbers, strict=True)
    return ", ".join(f"{name} {number:.3g}" for name, number in told)


def _library() -> Any:
    """scikit-learn's trees; ConfigError where it is not installed."""
    try:
        return importlib.import_module("sklearn.tree")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "a tree beside the policy needs scikit-learn: pip install 'shoal-rl[explain]'"
        ) from error


def _rules(
    tree: Any, node: int, features: Sequence[str], said: Sequence[str]
) -> tuple[list[str], int]:
    """The rules from a node of scikit-learn's tree on, and how many leaves they have; equal ones side by side are one.

    Args:
        tree: its arrays.
        node: where it is read from.
        features: their names.
        said: what each node says.
    """
    left, right = int(tree.children_left[node]), int(tree.children_right[node])
    if left < 0:
        return [said[node]], 1
    below, few = _rules(tree, left, features, said)
    above, more = _rules(tree, right, features, said)
    if below == above and few == 1:
        return below, 1
    name, bound = features[int(tree.feature[node])], float(tree.threshold[node])
    lines: list[str] = []
    for sign, part in (("<=", below), ("> ", above)):
        head = f"{name} {sign} {bound:.4g}"
        if len(part) == 1:
            lines.append(f"{head}: {part[0]}")
        else:
            lines += [head, *(f"    {line}" for line in part)]
    return lines, few + more
