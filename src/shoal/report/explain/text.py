"""An explanation in words, and as JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shoal.report.explain.counterfactuals import Change
    from shoal.report.explain.critic import Wrong
    from shoal.report.explain.explain import Explanation

SHOWN = 8
"""Features that are named, and episodes."""
WORST = 3


def as_text(found: Explanation) -> list[str]:
    """What a person reads, line by line."""
    visits = found.visits
    returns, costs = visits.returns(), visits.costs()
    cost = "" if costs is None else f", mean cost {costs.mean():.4g}"
    lines = [
        f"{visits.episodes} greedy episodes of {found.features.spec.env_id}, mean return {returns.mean():.4g}{cost}; "
        f"{len(found.at)} of {len(visits.reward):,} steps were asked about",
        "",
        *_importance(found),
    ]
    if found.counterfactuals is not None:
        lines += ["", *_changes(found)]
    if found.surrogate is not None:
        lines += ["", *_rules(found)]
    if found.criticism is not None:
        lines += ["", *_critic(found)]
    if found.notes:
        lines += ["", "To be kept in mind:"]
        lines += [f"  - {note}" for note in found.notes]
    return lines


def as_table(found: Explanation) -> dict[str, object]:
    """The same for programs, and for the report."""
    names, share = found.features.names, found.importance.share
    order = found.order()[:64]
    table: dict[str, object] = {
        "env": found.features.spec.env_id,
        "episodes": found.visits.episodes,
        "mean_return": float(found.visits.returns().mean()),
        "steps_asked": len(found.at),
        "importance": [[names[at], float(share[at])] for at in order],
        "incomplete": found.importance.incomplete,
        "notes": found.notes,
        "text": as_text(found),
    }
    costs = found.visits.costs()
    if costs is not None:
        table["mean_cost"] = float(costs.mean())
    if found.counterfactuals is not None:
        nearest = found.counterfactuals.nearest
        table["counterfactuals"] = [_change(found, change) for change in nearest]
    tree = found.surrogate
    if tree is not None:
        table["surrogate"] = {
            "fidelity": tree.fidelity,
            "measure": tree.measure,
            "plain": tree.plain,
            "depth": tree.depth,
            "leaves": tree.leaves,
            "trained_on": tree.trained_on,
            "held_out": tree.held_out,
        }
    if found.criticism is not None:
        table["critic"] = [
            [one.episode, one.step, one.expected, one.came]
            for one in found.criticism.worst[:WORST]
        ]
    return table


def _importance(found: Explanation) -> list[str]:
    names, share = found.features.names, found.importance.share
    lines = ["What its choices come from (integrated gradients, from the mean state):"]
    if found.features.image is not None:
        return [f"{lines[0][:-1]}: see saliency.png"]
    order = found.order()[:SHOWN]
    lines += [f"  {100 * share[at]:5.1f} %  {names[at]}" for at in order]
    if len(names) > SHOWN:
        lines.append(f"  and {len(names) - SHOWN:,} more features")
    lines.append(
        f"  (they leave out at most {100 * found.importance.incomplete:.2g} % of the mean change)"
    )
    return lines


def _changes(found: Explanation) -> list[str]:
    assert found.counterfactuals is not None
    lines = ["The smallest change of one feature that changes the action:"]
    sizes = found.counterfactuals.sizes
    for change in found.counterfactuals.nearest[:SHOWN]:
        column = sizes[:, change.feature]
        share = float(np.isfinite(column).mean())
        median = float(np.median(column))
        usual = f", {median:.2g} in the median step" if math.isfinite(median) else ""
        lines.append(
            f"  {_change(found, change)} ({100 * share:.0f} % of the steps have one{usual})"
        )
    if len(lines) == 1:
        lines.append("  none within what was seen changes it")
    return lines


def _change(found: Explanation, change: Change) -> str:
    name = found.features.names[change.feature]
    episode = int(found.visits.episode[change.step])
    step = change.step - int(np.searchsorted(found.visits.episode, episode))
    return (
        f"{name} {change.before:.3g} -> {change.after:.3g}, {change.size:.2g} standard deviations, in episode "
        f"{episode + 1} at step {step}: '{change.action}' becomes '{change.instead}'"
    )


def _rules(found: Explanation) -> list[str]:
    tree = found.surrogate
    assert tree is not None
    return [
        f"Rules like it: a tree of depth {tree.depth} with {tree.leaves} leaves, fidelity {tree.fidelity:.3f} "
        f"({tree.measure}; {tree.plain:.3f} without looking; {tree.trained_on:,} steps fitted, {tree.held_out:,} held "
        "out):",
        *(f"  {line}" for line in tree.rules.rstrip().splitlines()),
    ]


def _critic(found: Explanation) -> list[str]:
    criticism = found.criticism
    assert criticism is not None
    lines = ["Where the critic was most wrong (discounted rewards, as it was trained):"]
    lines += [_wrong(one) for one in criticism.worst[:WORST]]
    lines.append(
        f"  over all steps what it expects and what comes correlate by {criticism.correlation:.2f}"
    )
    return lines


def _wrong(one: Wrong) -> str:
    return (
        f"  episode {one.episode + 1} (return {one.score:.4g}, {one.length:,} steps): at step {one.step} it expected "
        f"{one.expected:.4g}, and {one.came:.4g} came"
    )
