"""The rule on a held-out value: it does not fall while the returns that are learned from rise."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.run.guard.rules import Stateless
from shoal.run.guard.seen import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.run.guard.seen import Seen

BLOCK = 64
"""Episodes of a block, at least."""
WIDE = 3
"""Blocks in a row that are compared, with those in a row that were best."""
LEAST, RECENT = 10, 32
"""Blocks that there must be, and the last ones by which it is known how much they differ by chance."""
FELL, ROSE = 7.0, 4.0
"""Standard errors by which the held-out value must have fallen, and the return risen. The first is larger, as what is
best of many is so by chance too."""
CLEAR = 0.3
"""Standard deviations of single episodes by which the held-out value must have fallen besides."""


@dataclass(frozen=True, slots=True)
class Block:
    """What some episodes in a row came to."""

    gained: float
    """Their mean return."""
    held: float
    """Their mean held-out value."""
    gained_spread: float
    """The standard deviation of single returns."""
    held_spread: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> Block:
        """Of returns and held-out values."""
        means, spreads = np.mean(pairs, axis=0), np.std(pairs, axis=0)
        return cls(*means.tolist(), *spreads.tolist())

    @classmethod
    def mean(cls, blocks: Sequence[Block]) -> Block:
        """Of several blocks."""
        return cls(*np.mean([astuple(block) for block in blocks], axis=0).tolist())


class HeldOutFall(Stateless):
    """A held-out value stays where it was best, while returns rise."""

    name = "hacking"
    reads = ()

    def __init__(self, what: str) -> None:
        """`what`: its name."""
        self.what = what
        self._open: list[tuple[float, float]] = []
        """Episodes of the block that is not full."""
        self._blocks: deque[Block] = deque(maxlen=RECENT)
        self._since = 0
        """Blocks since it began to compare."""
        self._best: Block | None = None
        """The mean of those in a row with the best held-out value."""

    def look(self, seen: Seen) -> Finding | None:
        """Takes episodes in; compares where a block is full."""
        self._open += seen.pairs
        if len(self._open) < BLOCK:
            return None
        self._blocks.append(Block.of(self._open))
        self._open, self._since = [], self._since + 1
        if self._since < WIDE:
            return None
        best, now = self._best, Block.mean([*self._blocks][-WIDE:])
        if best is None or now.held >= best.held:
            self._best = now
            return None
        if len(self._blocks) < LEAST or not self._is_hacked(best, now):
            return None
        self.forget()
        said = (
            f"returns rose from {best.gained:.3g} to {now.gained:.3g} while {self.what} fell from {best.held:.3g} to "
            f"{now.held:.3g}"
        )
        return Finding(said, "rollback")

    def forget(self) -> None:
        """Compares what comes anew, with the best that there was."""
        self._open, self._since = [], 0

    def state(self) -> Any:
        """All that `restore` needs."""
        return {
            "open": [list(pair) for pair in self._open],
            "blocks": [list(astuple(block)) for block in self._blocks],
            "since": self._since,
            "best": [] if self._best is None else list(astuple(self._best)),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continues from `saved`; what another rule of this name has kept is left out."""
        if "open" not in saved:
            return
        self._open = [(float(one), float(other)) for one, other in saved["open"]]
        self._blocks.clear()
        self._blocks.extend(Block(*map(float, block)) for block in saved["blocks"])
        self._since = int(saved["since"])
        self._best = Block(*map(float, saved["best"])) if saved["best"] else None

    def _is_hacked(self, best: Block, now: Block) -> bool:
        """Whether returns are larger and held-out values smaller than they were, both beyond chance."""
        held_spread = _both(best.held_spread, now.held_spread)
        gained_spread = _both(best.gained_spread, now.gained_spread)
        held = _error([block.held for block in self._blocks], held_spread)
        gained = _error([block.gained for block in self._blocks], gained_spread)
        fell, rose = best.held - now.held, now.gained - best.gained
        return fell > max(FELL * held, CLEAR * held_spread) and rose > ROSE * gained


def _both(one: float, other: float) -> float:
    """The standard deviation that is in the middle of two."""
    return math.hypot(one, other) / math.sqrt(2)


def _error(means: Sequence[float], spread: float) -> float:
    """The standard error of the difference of two means of `WIDE` blocks.

    Blocks differ by more than single episodes would have them where these depend on each other, as answers to one
    prompt do: it is measured from one block to the next, which a slow change hardly moves. At least it is what single
    episodes would make it.
    """
    between = float(np.abs(np.diff(means)).mean()) * math.sqrt(math.pi) / 2
    return max(between, spread / math.sqrt(BLOCK)) * math.sqrt(2 / WIDE)
