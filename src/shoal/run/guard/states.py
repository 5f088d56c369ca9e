"""States of a learner that the guard keeps: one that is being verified, the last good one, and the best."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any, cast

import torch

from shoal.learn.trainable import is_sharded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.learn.learner import Learner
    from shoal.run.guard.returns import Returns

IDLE = 50
"""Checks without an end of an episode after which states are verified without returns."""
ROLES = ("candidate", "good", "best")


@dataclass(frozen=True, slots=True)
class Kept:
    """A copy of a learner's state, when it was taken, and what was known of it."""

    state: Any
    update: int
    episodes: int
    """That had ended by then."""
    before: float
    """The mean return of the last episodes by then."""
    figure: float = math.nan
    """Its verified return: the lower of that before and that after; NaN where there are no episodes."""
    spread: float = math.nan
    length: float = math.nan
    """The mean length of its episodes."""
    before_held: float = math.nan
    """The mean held-out value of the last episodes by then; NaN where they have none."""
    held: float = math.nan
    """Its verified held-out value, likewise the lower of two."""

    @property
    def said(self) -> str:
        """Its update, and its verified figures where there are some."""
        if math.isnan(self.figure):
            return f"{self.update:,}"
        if math.isnan(self.held):
            return f"{self.update:,} (mean return {self.figure:.4g})"
        return (
            f"{self.update:,} (mean return {self.figure:.4g}, held-out {self.held:.4g})"
        )


class States:
    """The states that are kept of one learner."""

    def __init__(
        self, learner: Learner, *, verify: int, band: float, limit_bytes: float
    ) -> None:
        """Nothing is kept.

        Args:
            learner: whose.
            verify: checks without a finding that make a state good.
            band: a good one has lost less than half of this share of what was gained.
            limit_bytes: what three copies may take.
        """
        self.learner, self.verify, self.band = learner, verify, band
        self.candidate: Kept | None = None
        self.good: Kept | None = None
        self.best: Kept | None = None
        self.quiet = 0
        """Checks without a finding since the candidate was taken, or since the last one."""
        self.needed_bytes = 3 * bytes_of(learner)
        """What the copies take; infinite where no rank holds a whole one."""
        self.possible = self.needed_bytes <= limit_bytes

    def pass_check(self, update: int, returns: Returns) -> bool:
        """A check without a finding: perhaps a state is verified by it, or a new one taken; whether one was verified.

        A candidate is good when `verify` checks have found nothing since it was taken, and so many episodes have ended
        since as make a mean. Its figure is the lower of the mean returns before and after: where learning is fast or
        breaks down, one of them would flatter it. Where episodes have a held-out value, one that is far below the best
        by that is not verified.
        """
        self.quiet += 1
        if not self.possible:
            return self.quiet == self.verify
        there = self.candidate
        if there is None:
            if returns.full or self.quiet >= IDLE:
                self._take(update, returns)
            return False
        since = returns.total - there.episodes
        waits = since < returns.size and not self._idle(since)
        if self.quiet < self.verify or waits:
            return False
        near = self._judge(there, returns)
        self._take(update, returns)
        return near or math.isnan(there.before_held)

    def drop_candidate(self) -> None:
        """Something was found: what is being verified is not good."""
        self.candidate, self.quiet = None, 0

    def target(self, backs: int) -> Kept | None:
        """What to go back to, the first time and the second."""
        return self.best if backs > 1 and self.best is not None else self.good

    def parts(self) -> dict[str, Any]:
        """The kept states, by role, as a checkpoint holds them; one that has two roles once."""
        found: dict[str, Any] = {}
        for role in ROLES:
            kept: Kept | None = getattr(self, role)
            if kept is not None and not (role == "best" and kept is self.good):
                found[role] = {name: getattr(kept, name) for name in Kept.__slots__}
        return found

    def state(self) -> dict[str, Any]:
        """All that `restore` needs besides `parts`."""
        same = self.best is not None and self.best is self.good
        return {"quiet": self.quiet, "best_is_good": same}

    def restore(self, saved: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
        """Continues from `saved` and the states in `parts`."""
        self.quiet = int(saved["quiet"])
        for role in ROLES:
            found = Kept(**parts[role]) if role in parts else None
            setattr(self, role, found)
        if saved["best_is_good"]:
            self.best = self.good

    def _idle(self, since: int) -> bool:
        return not since and self.quiet >= IDLE

    def _take(self, update: int, returns: Returns) -> None:
        """A copy of the learner becomes the candidate."""
        state = copied(self.learner.state(check=False))
        self.candidate = Kept(
            state,
            update,
            returns.total,
            returns.mean,
            before_held=returns.mean_held,
        )
        self.quiet = 0

    def _judge(self, there: Kept, returns: Returns) -> bool:
        """The candidate is good, where its figure is near the best one, perhaps the best; whether it is good.

        States are compared by their held-out values where they have one, else by their returns.
        """
        kept = replace(
            there,
            figure=min(there.before, returns.mean),
            spread=returns.spread,
            length=returns.mean_length,
            held=_lower(there.before_held, returns.mean_held),
        )
        best = self.best
        if best is None or math.isnan(best.figure):
            self.best = self.good = kept
            return True
        mine, theirs, first = kept.figure, best.figure, returns.first
        share = self.band / 2
        if not (math.isnan(kept.held) or math.isnan(best.held)):
            mine, theirs, first = kept.held, best.held, returns.first_held
            share /= 2  # a reward that is being hacked is high by the other figure
        if not mine < theirs:
            self.best = self.good = kept
            return True
        near = mine >= theirs - share * max(0.0, theirs - first)
        if near:
            self.good = kept
        return near


def _lower(one: float, other: float) -> float:
    """The lower of two numbers; NaN where one of them is."""
    return math.nan if math.isnan(one) or math.isnan(other) else min(one, other)


def copied(tree: Any) -> Any:
    """A tree with its tensors copied, on the device that they are on."""
    if torch.is_tensor(tree):
        return tree.detach().clone()
    if isinstance(tree, dict):
        table = cast("dict[Any, Any]", tree)
        return {key: copied(value) for key, value in table.items()}
    if isinstance(tree, list):
        return [copied(value) for value in cast("list[Any]", tree)]
    return tree


def bytes_of(learner: Learner) -> float:
    """What one copy of a learner takes: its parameters, and two moments of each that is trained.

    Infinite where they lie in parts on several ranks, none of which holds a copy.
    """
    total = 0
    for network in learner.networks.values():
        if is_sharded(network):
            return inf
        for parameter in network.module.parameters():
            copies = (
                3 if network.optimizer is not None and parameter.requires_grad else 1
            )
            total += copies * parameter.numel() * parameter.element_size()
    return total
