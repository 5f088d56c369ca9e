"""The rule on returns: what was gained since the start is not lost again."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.run.guard.seen import Finding
from shoal.run.guard.turned import Turned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.run.guard.seen import Seen
    from shoal.types import Episodes

LEAST, MOST = 32, 100
"""Episodes in a mean: as many as there are rows, within these bounds; of a language model the answers to so many
prompts as these are at most."""
NOISE = 7.5
"""Standard errors of a mean that the band must be wide: before so much was gained, a fall may be chance."""


class ReturnFall:
    """The mean return stays within a band below the verified best.

    Where it falls again in the first mean after the learner went back for it, the run is to be stopped: verified
    weights do not lose their return by themselves, so that the environment has changed, and what is learned in it is
    not what the best was verified by. With rewards of the other sign it would even look better.
    """

    name = "return"
    reads = ()

    def __init__(self, band: float) -> None:
        """`band`: the share of what was gained that may be lost again."""
        self.band = band
        self.fell = False
        """Whether the last mean had fallen."""
        self.went_back = False
        """Whether the learner went back for it, and no mean was there since."""

    def forget(self) -> None:
        """The learner went back, whether for this or for something else."""
        self.went_back, self.fell = self.fell, False

    def state(self) -> list[bool]:
        """All that `restore` needs."""
        return [self.fell, self.went_back]

    def restore(self, saved: Sequence[bool]) -> None:
        """Continues from `saved`; checkpoints of earlier versions have nothing of it."""
        self.fell, self.went_back = map(bool, saved or (False, False))

    def look(self, seen: Seen) -> Finding | None:
        """Compares once enough episodes have ended since the start or the last step back."""
        best, mean, first = seen.best_return, seen.mean_return, seen.first_return
        if math.isnan(mean) or math.isnan(best) or math.isnan(first):
            return _turned(seen)
        noise = NOISE * seen.spread / math.sqrt(seen.episodes / seen.alike)
        allowed = self.band * (best - first)
        again, self.went_back = self.went_back, False
        self.fell = not allowed < noise and best - mean > allowed
        if not self.fell:
            return _turned(seen)
        if again:
            said = (
                f"the first {seen.episodes} episodes after going back have a mean return of {mean:.4g}, where "
                f"{best:.4g} was verified: the environment or its rewards have changed"
            )
            return Finding(said, "stop")
        said = f"the mean return of {seen.episodes} episodes fell to {mean:.4g}, from the verified best {best:.4g}"
        return Finding(said, "rollback")


def _turned(seen: Seen) -> Finding | None:
    """Returns with the other sign, before anything was gained that could be lost: what is learned then is wrong."""
    if seen.turned is None:
        return None
    before, now = seen.turned
    said = (
        f"the mean return of {seen.episodes} episodes is {now:.4g}, where just before it was {before:.4g}: the rewards "
        "have turned their sign"
    )
    return Finding(said, "stop")


class Returns:
    """The last returns of one learner's episodes, and their lengths."""

    def __init__(
        self,
        rows: int,
        held_out: str = "",
        *,
        behind: int = 0,
        alike: int = 0,
        alone: bool = False,
    ) -> None:
        """None yet.

        Args:
            rows: that are its own.
            held_out: the info value that nothing is learned from, where there is one.
            behind: steps that older weights may have chosen by the time they are learned from.
            alike: of answers, which are a step each: how many have the same prompt. 0: these are episodes.
            alone: whether nobody else acts in these episodes, who might turn what they return.
        """
        self.rows, self._held_out = rows, held_out
        self.alike, self._behind = alike, behind
        size = alike * MOST or min(MOST, max(LEAST, rows))
        self.returns: deque[float] = deque(maxlen=size)
        self.lengths: deque[float] = deque(maxlen=size)
        self.held: deque[float] = deque(maxlen=size)
        """The last held-out values."""
        self.pairs: list[tuple[float, float]] = []
        """Returns and held-out values of episodes since they were taken last."""
        self.first = math.nan
        """The first mean over a full window."""
        self.first_held = math.nan
        """The first mean of held-out values."""
        self.total = 0
        """Episodes so far."""
        self.turned: tuple[float, float] | None = None
        """The mean return before and now, where the sign has turned between."""
        self._turned = Turned(size, rows) if alone else None
        self.deaf_until = 0
        """Environment steps before which ends of episodes say nothing: they began with other weights."""

    @property
    def size(self) -> int:
        """Episodes in a mean."""
        return self.returns.maxlen or 0

    @property
    def full(self) -> bool:
        """Whether there are enough for a mean."""
        return len(self.returns) == self.size

    @property
    def mean(self) -> float:
        """The mean return; NaN before there are enough."""
        return sum(self.returns) / self.size if self.full else math.nan

    @property
    def spread(self) -> float:
        """Their standard deviation; NaN before there are enough."""
        return float(np.std(self.returns)) if self.full else math.nan

    @property
    def mean_length(self) -> float:
        """The mean length; NaN before there are enough."""
        return sum(self.lengths) / self.size if self.full else math.nan

    @property
    def mean_held(self) -> float:
        """The mean held-out value; NaN before there are enough."""
        full = len(self.held) == self.size
        return sum(self.held) / self.size if full else math.nan

    def take_pairs(self) -> tuple[tuple[float, float], ...]:
        """Returns and held-out values of the episodes since the last call."""
        pairs, self.pairs = tuple(self.pairs), []
        return pairs

    def note(self, episodes: Episodes, step: int) -> None:
        """Takes in episodes that ended by `step`."""
        if not len(episodes.returns) or step < self.deaf_until:
            return
        self.returns.extend(episodes.returns.tolist())
        self.lengths.extend(episodes.lengths.tolist())
        self.total += len(episodes.returns)
        if math.isnan(self.first):
            self.first = self.mean
        if self._turned is not None and self.full:
            self.turned = self._turned.look(self.returns, self.total)
        self._note_held_out(episodes)

    def forget(self, step: int, length: float) -> None:
        """Begins anew where the learner went back: for as long as episodes last, those that end began before."""
        self.returns.clear()
        self.lengths.clear()
        self.held.clear()
        self.pairs.clear()
        self.turned = None
        if self._turned is not None:
            self._turned.forget()
        if self.alike:
            self.deaf_until = step + self._behind + 1
        elif math.isfinite(length):
            self.deaf_until = step + self._behind + int(length * self.rows)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "first": self.first,
            "total": self.total,
            "deaf_until": self.deaf_until,
            "held": list(self.held),
            "pairs": [list(pair) for pair in self.pairs],
            "first_held": self.first_held,
            "turned": [] if self._turned is None else self._turned.state(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continues from `saved`."""
        self.returns.clear()
        self.lengths.clear()
        self.returns.extend(map(float, saved["returns"]))
        self.lengths.extend(map(float, saved["lengths"]))
        self.first, self.total = float(saved["first"]), int(saved["total"])
        self.deaf_until = int(saved["deaf_until"])
        self.held.clear()
        self.held.extend(map(float, saved.get("held", ())))
        pairs = saved.get("pairs", ())
        self.pairs = [(float(one), float(other)) for one, other in pairs]
        self.first_held = float(saved.get("first_held", math.nan))
        if self._turned is not None:
            self._turned.restore(saved.get("turned", ()))

    def _note_held_out(self, episodes: Episodes) -> None:
        """Takes in the held-out values that are known."""
        values = episodes.info.get(self._held_out)
        if values is None:
            return
        for gained, value in zip(
            episodes.returns.tolist(), values.tolist(), strict=True
        ):
            if math.isfinite(value):
                self.held.append(value)
                self.pairs.append((gained, value))
        if math.isnan(self.first_held):
            self.first_held = self.mean_held
