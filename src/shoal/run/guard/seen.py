"""What the guard sees of an update, and what a rule says of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Action: TypeAlias = Literal["tell", "skip", "halve", "rollback", "stop"]
"""What may follow: say it, leave the update as it was skipped, halve the learning rate, go back, end the run."""
ACTIONS: tuple[Action, ...] = ("tell", "skip", "halve", "rollback", "stop")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found wrong, and the least that is to follow; where it goes on, more does."""

    said: str
    """A sentence with the numbers, such as "the KL divergence is 3.1, above 0.5"."""
    action: Action = "halve"
    rule: str = ""
    """The rule's name; the guard fills it in."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One learner when an update is over."""

    learner: str
    """Its name: "policy" where it is alone."""
    update: int
    step: int
    """Environment steps so far."""
    numbers: Mapping[str, float]
    """Means over the update by the names of metrics, such as loss/approx_kl."""
    taken: int = 1
    """Gradient steps since the guard looked last."""
    skipped: int = 0
    """Those that were not finite, and changed nothing."""
    finite: bool = True
    """Whether its weights are finite."""
    mean_return: float = nan
    """Of its last episodes; NaN before there are enough."""
    mean_length: float = nan
    """Likewise."""
    first_return: float = nan
    """The first such mean of the run."""
    best_return: float = nan
    """Of the best state that was verified; NaN before there is one."""
    spread: float = nan
    """The standard deviation of the returns by which that was verified."""
    episodes: int = 0
    """How many the means are over."""
    alike: int = 1
    """How many of these go together: answers to one prompt, which is hard for all of them."""
    turned: tuple[float, float] | None = None
    """The mean return before and now, where returns are suddenly what they were with the other sign."""
    seconds_a_step: float = nan
    """Of collecting and learning since the guard looked last, for each environment step."""
    seconds: float = 0.0
    """Since the guard looked last."""
    held_out: float = nan
    """The mean held-out value of its last episodes, where they have one (`guarding.held_out`, a held-out scorer)."""
    pairs: tuple[tuple[float, float], ...] = ()
    """Return and held-out value of each episode that has one and ended since the guard looked last."""
    beside: tuple[tuple[str, float], ...] = ()
    """Numbers of what happens beside: how stale steps are, how long ago an actor was heard."""

    def number(self, *names: str) -> float | None:
        """The first of these metrics that there is."""
        for name in names:
            if name in self.numbers:
                return self.numbers[name]
        return None


Rule: TypeAlias = "Callable[[Seen], Finding | str | None]"
"""A user's own rule: None where all is well, else what is wrong, as a sentence or a `Finding`."""
