"""Rules on what an update's own numbers say: not finite, too far, no exploration left, losses that explode."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from shoal.run.guard.reach import GREW, SPREAD
from shoal.run.guard.recent import Recent
from shoal.run.guard.seen import Finding

if TYPE_CHECKING:
    from shoal.run.guard.seen import Seen

WINDOW, LEAST = 20, 5
"""Checks that a rule compares with, and how many there must be."""
IN_A_ROW = 3
"""Checks of which each must be beyond a limit, where single ones may be so by chance."""
LARGER = 3.0
"""Times its largest of all that a number is above where it explodes."""
SEVERE = 10.0
"""So many times a limit is beyond what a smaller learning rate mends: the guard goes back at once."""


class Watches(Protocol):
    """A rule: it looks at every check, in order."""

    @property
    def name(self) -> str:
        """As settings call it."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """Metrics, one of which it needs; none where it needs none."""
        ...

    def look(self, seen: Seen) -> Finding | None:
        """What is wrong, if anything is."""
        ...

    def forget(self) -> None:
        """Begins to compare anew: the learner went back."""
        ...

    def state(self) -> Any:
        """All that `restore` needs."""
        ...

    def restore(self, saved: Any) -> None:
        """Continues from `saved`."""
        ...


class Stateless:
    """A rule that compares with nothing."""

    def forget(self) -> None:
        """Nothing."""

    def state(self) -> Any:
        """Nothing."""
        return []

    def restore(self, saved: Any) -> None:
        """Nothing."""


class Finite(Stateless):
    """Losses, gradients and weights are finite."""

    name = "finite"
    reads = ()

    def look(self, seen: Seen) -> Finding | None:
        """Weights that are not finite can only be replaced; an update that is not was skipped."""
        if not seen.finite:
            return Finding("the weights are not finite", "rollback")
        if seen.skipped:
            said = f"{seen.skipped} of {seen.skipped + seen.taken} gradient steps were not finite"
            return Finding(said, "skip")
        return None


class Limit(Stateless):
    """A number stays below a limit."""

    def __init__(self, limit: float) -> None:
        """`limit`: what it may be."""
        self.limit = limit

    name: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    what: ClassVar[str] = ""

    def look(self, seen: Seen) -> Finding | None:
        """Above the limit the rate is halved; far above it the learner goes back."""
        value = seen.number(*self.reads)
        if value is None or value <= self.limit:
            return None
        said = f"{self.what} is {value:.3g}, above {self.limit:g}"
        return Finding(said, "rollback" if value > SEVERE * self.limit else "halve")


class Kl(Limit):
    """An update stays near the policy that acted."""

    name = "kl"
    reads = ("loss/approx_kl",)
    what = "the KL divergence of the update"


class Drift(Limit):
    """What learns stays near what draws the answers.

    The mean over tokens has heavy tails: a single token that had become many times as likely makes it large in a run
    that learns well. What has really gone far is so in several checks in a row.
    """

    name = "drift"
    reads = ("loss/kl",)
    what = "the KL divergence of the learner from the sampler"

    def __init__(self, limit: float) -> None:
        """`limit`: what it may be."""
        super().__init__(limit)
        self.recent = Recent(IN_A_ROW, IN_A_ROW)

    def look(self, seen: Seen) -> Finding | None:
        """Compares the least of the last checks."""
        value = seen.number(*self.reads)
        if value is None:
            return None
        self.recent.add(value)
        if not self.recent.full:
            return None
        least = min(self.recent.values)
        found = super().look(replace(seen, numbers={self.reads[0]: least}))
        if found is None:
            return None
        return replace(found, said=f"{found.said}, {IN_A_ROW} checks in a row")

    def forget(self) -> None:
        """Begins to look anew."""
        self.recent.forget()

    def state(self) -> Any:
        """All that `restore` needs."""
        return self.recent.state()

    def restore(self, saved: Any) -> None:
        """Continues from `saved`."""
        self.recent.restore(saved)


class Windowed:
    """A rule that compares a number with its last ones."""

    reads: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        """Nothing was seen."""
        self.recent = Recent(WINDOW, LEAST)

    def look(self, seen: Seen) -> Finding | None:
        """Compares, then remembers, unless something is wrong with the number."""
        value = seen.number(*self.reads)
        if value is None or not math.isfinite(value):
            return None
        found = self.compare(value) if self.recent.full else None
        if found is None:
            self.recent.add(value)
        return found

    def compare(self, value: float) -> Finding | None:
        """What is wrong with a number beside the last ones."""
        raise NotImplementedError

    def forget(self) -> None:
        """Begins to compare anew."""
        self.recent.forget()

    def state(self) -> Any:
        """All that `restore` needs."""
        return self.recent.state()

    def restore(self, saved: Any) -> None:
        """Continues from `saved`."""
        self.recent.restore(saved)


class Entropy(Windowed):
    """A policy does not lose its exploration at once."""

    name = "entropy"
    reads = ("loss/entropy",)
    NATS: ClassVar[float] = 3.0
    """Of continuous actions, whose entropy may be below 0: the fall that is too much."""

    def __init__(self, share: float, *, continuous: bool) -> None:
        """Looks at one policy.

        Args:
            share: of the entropy that it was, below which it has collapsed.
            continuous: whether an action has a density, so that 0 is an entropy as any other.
        """
        super().__init__()
        self.share, self.continuous = share, continuous

    def compare(self, value: float) -> Finding | None:
        """Compares with the median of the last checks."""
        before = self.recent.median
        if self.continuous:
            fell = value < before - self.NATS
        else:
            fell = value < self.share * before and before > 1e-3
        if not fell:
            return None
        said = (
            f"the entropy fell from {before:.3g} to {value:.3g} within {WINDOW} checks"
        )
        return Finding(said, "rollback")


class Explosion(Windowed):
    """A number does not become far larger than ever and many times its largest of late.

    Where rewards were found that lie far beyond all before, such as that of a first success, it may: what was right
    until then is not. For as many checks as are compared with, nothing is said.
    """

    def __init__(self, factor: float) -> None:
        """`factor`: how many times."""
        super().__init__()
        self.factor, self.peak = factor, 0.0
        self.settling = 0
        """Checks in which it only remembers."""

    name: ClassVar[str] = ""
    what: ClassVar[str] = ""
    least: ClassVar[float] = -1.0
    """What is not above it is no number to compare with."""

    def look(self, seen: Seen) -> Finding | None:
        """Compares, then remembers the largest of all that were not found wrong."""
        value = seen.number(*self.reads)
        if seen.number(GREW):
            self.settling = WINDOW
        if value is None or not math.isfinite(value) or value <= self.least:
            return None
        found = None
        if self.settling:
            self.settling -= 1
        elif self.recent.full and not self.explained(value, seen):
            found = self.compare(value)
        if found is None:
            self.recent.add(value)
            self.peak = max(self.peak, value)
        return found

    def explained(self, value: float, seen: Seen) -> bool:
        """Whether rewards alone may make it so large."""
        return False

    def compare(self, value: float) -> Finding | None:
        """Compares with the largest of the last checks, and of all."""
        before = max(self.recent.values)
        if value <= max(LARGER * self.peak, self.factor * before):
            return None
        if before > 0:
            said = f"{self.what} is {value:.3g}, {value / before:.3g} times its largest of the last {WINDOW} checks"
        else:
            said = f"{self.what} is {value:.3g}, above its largest of the last {WINDOW} checks"
        severe = value > SEVERE * self.factor * before
        return Finding(said, "rollback" if severe else "halve")

    def state(self) -> Any:
        """All that `restore` needs."""
        return {
            "recent": self.recent.state(),
            "peak": self.peak,
            "settling": self.settling,
        }

    def restore(self, saved: Any) -> None:
        """Continues from `saved`."""
        self.recent.restore(saved["recent"])
        self.peak = float(saved["peak"])
        self.settling = int(saved.get("settling", 0))  # checkpoints of earlier versions


class ValueLoss(Explosion):
    """The loss of values does not explode."""

    name = "value"
    reads = ("loss/value", "loss/critic")
    what = "the value loss"

    def explained(self, value: float, seen: Seen) -> bool:
        """A value that lacks the whole spread of rewards is off by its square."""
        return value <= (seen.number(SPREAD) or 0.0) ** 2


class Gradient(Explosion):
    """Gradients do not explode. One of 0 says nothing of them: all answers to each prompt earned the same."""

    name = "gradient"
    reads = ("loss/grad_norm",)
    what = "the norm of the gradient"
    least = 1e-9
