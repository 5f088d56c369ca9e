"""Watching one learner: its rules, its ladder, the states that it can go back to, and what is done to it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gymnasium import spaces

from shoal.learn.rate_factor import rate_factor_of, set_rate_factor
from shoal.run.guard.answers import Hacking, Length
from shoal.run.guard.clock import Heartbeat, Speed, Staleness
from shoal.run.guard.held_out import HeldOutFall
from shoal.run.guard.ladder import Ladder
from shoal.run.guard.own import finding_of
from shoal.run.guard.reach import Reach
from shoal.run.guard.returns import ReturnFall
from shoal.run.guard.rules import (
    Drift,
    Entropy,
    Finite,
    Gradient,
    Kl,
    ValueLoss,
)
from shoal.run.guard.seen import Finding
from shoal.run.guard.states import States
from shoal.types import ConfigError, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from shoal.learn.learner import Learner
    from shoal.learn.trainable import Trainable
    from shoal.run.guard.returns import Returns
    from shoal.run.guard.rules import Watches
    from shoal.run.guard.seen import Action, Rule, Seen
    from shoal.run.guard.settings import Guarding
    from shoal.run.guard.states import Kept
    from shoal.run.settings import Settings

GIB = 1 << 30
LEAST_FACTOR = 2.0**-10
"""Of a learning rate: below, nothing is learned."""


def rules_of(
    cfg: Guarding, policy: nn.Module, s: Settings, *, with_returns: bool
) -> list[Watches]:
    """The rules that are switched on.

    Args:
        cfg: which, and their limits.
        policy: the learner's.
        s: the run's.
        with_returns: whether the learner has episodes whose returns say how good it is.
    """
    every: list[Watches] = [
        Finite(),
        Kl(cfg.kl),
        Entropy(cfg.entropy, continuous=_is_continuous(policy)),
        ValueLoss(cfg.explosion),
        Gradient(cfg.explosion),
        Speed(cfg.slowdown),
        Heartbeat(cfg.slowdown),
        Staleness(s.max_staleness),
        Length(),
        HeldOutFall(s.held_out) if s.held_out else Hacking(),
        Drift(cfg.drift),
    ]
    if with_returns:
        every.append(ReturnFall(cfg.band))
    return [rule for rule in every if cfg.watches(rule.name)]


class Watch:
    """One learner of a run."""

    def __init__(
        self,
        name: str,
        learner: Learner,
        rules: Sequence[Watches],
        own: Sequence[Rule],
        cfg: Guarding,
        returns: Returns,
    ) -> None:
        """Watches from its first update on.

        Args:
            name: the learner's.
            learner: who learns.
            rules: the guard's.
            own: the user's.
            cfg: the guard's settings.
            returns: of its own episodes.
        """
        self.name, self.learner = name, learner
        self.rules, self.own = rules, own
        self.returns, self.ladder, self.reach = returns, Ladder(), Reach()
        self.states = States(
            learner,
            verify=cfg.verify,
            band=cfg.band,
            limit_bytes=cfg.memory_gib * GIB,
        )
        self.acted = False
        """Whether something was ever done to this learner: then the best state that was verified ends the run."""
        self.counted = 0, 0
        """Gradient steps that were taken and skipped when it was looked at last."""
        self.asked = set(cfg.rules)
        """Rules that were asked for by name."""

    @property
    def finite(self) -> bool:
        """Whether all weights are finite."""
        return all(map(_is_finite, self.learner.networks.values()))

    def count(self) -> tuple[int, int]:
        """Gradient steps taken and skipped since the last call."""
        before = self.counted
        self.counted = self.learner.updates, self.learner.skipped
        return self.counted[0] - before[0], self.counted[1] - before[1]

    def look(self, seen: Seen) -> list[Finding]:
        """What its rules find."""
        if self.asked and seen.taken:
            self._check_asked(seen)
        return list(self._findings(seen))

    def decide(self, seen: Seen, findings: Sequence[Finding]) -> Action | None:
        """What follows; None where nothing is wrong with the learner."""
        wrong = [found for found in findings if found.action != "tell"]
        if not wrong:
            if self.states.pass_check(seen.update, self.returns):
                self.ladder.close()
            return None
        self.states.drop_candidate()
        self.acted = True
        may_go_back = self.states.good is not None
        slowest = self.factor <= LEAST_FACTOR
        return self.ladder.take(wrong, may_go_back=may_go_back, slowest=slowest)

    def halve(self) -> None:
        """All its networks learn at half the rate from now on."""
        set_rate_factor(self.learner, max(LEAST_FACTOR, self.factor / 2))

    @property
    def factor(self) -> float:
        """What its learning rates are multiplied by."""
        return rate_factor_of(self.learner)

    def go_back(self, step: int) -> Kept:
        """Weights, optimizers and statistics become those of its last good state, or of the best; at half the rate."""
        target = self.states.target(self.ladder.backs)
        assert target is not None
        factor = self.factor
        self.put(target)
        factor = max(LEAST_FACTOR, min(factor, self.factor) / 2)
        set_rate_factor(self.learner, factor)
        for rule in self.rules:
            rule.forget()
        self.returns.forget(step, target.length)
        return target

    def put(self, kept: Kept) -> None:
        """The learner becomes what it was; skipped steps stay counted."""
        skipped = self.learner.skipped
        self.learner.restore(kept.state)
        self.learner.skipped = skipped
        self.counted = self.learner.updates, skipped

    def state(self) -> dict[str, Any]:
        """All that `restore` needs besides the states' own parts."""
        return {
            "rules": {rule.name: rule.state() for rule in self.rules},
            "returns": self.returns.state(),
            "reach": self.reach.state(),
            "ladder": self.ladder.state(),
            "states": self.states.state(),
            "acted": self.acted,
            "counted": list(self.counted),
        }

    def restore(self, saved: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
        """Continues from `saved`; a rule that was not there then begins anew."""
        for rule in self.rules:
            if rule.name in saved["rules"]:
                rule.restore(saved["rules"][rule.name])
        self.returns.restore(saved["returns"])
        self.reach.restore(saved.get("reach", ()))
        self.ladder.restore(saved["ladder"])
        self.states.restore(saved["states"], parts)
        self.acted = bool(saved["acted"])
        taken, skipped = saved["counted"]
        self.counted = int(taken), int(skipped)

    def _findings(self, seen: Seen) -> Iterator[Finding]:
        for rule in self.rules:
            found = rule.look(seen)
            if found is not None:
                yield replace(found, rule=rule.name)
        for own in self.own:
            found = finding_of(own, seen)
            if found is not None:
                yield found

    def _check_asked(self, seen: Seen) -> None:
        """ConfigError where a rule was asked for by name and has nothing to read."""
        there = {rule.name: rule for rule in self.rules}
        for name in sorted(self.asked):
            rule = there.get(name)
            if rule is None:
                raise ConfigError(
                    f"guarding.rules names {name!r}, but this run has no returns that say how good {self.name} is; "
                    "take it out"
                )
            if rule.reads and seen.number(*rule.reads) is None:
                raise ConfigError(
                    f"guarding.rules names {name!r}, which reads {' or '.join(rule.reads)}, but this run reports "
                    f"{', '.join(sorted(seen.numbers))}; take it out"
                )
        self.asked = set()


def _is_finite(network: Trainable) -> bool:
    """Whether all parameters are: their sum is not where one of them is not."""
    if not network.shared_parameters():
        return True
    return math.isfinite(float(network.descent.packed.memory.sum()))


def _is_continuous(policy: nn.Module) -> bool:
    """Whether a policy's actions, or some of them, are numbers with a density."""
    space: Any = getattr(getattr(policy, "spec", None), "action_space", None)
    if space is None:
        return False
    return any(isinstance(part, spaces.Box) for _, part in leaf_spaces(space))
