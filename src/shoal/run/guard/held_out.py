"""The rule on a held-out value: it does not fall while the returns that are learned from rise."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.run.guard.rules import Stateless
from shoal.run.guard.seen import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.run.guard.seen import Seen

BLOCK = 64
"""Episodes that are judged together."""
IN_A_ROW = 3
"""Blocks of which each must be worse: by chance that happens in one run of many millions."""
SURE, CLEAR = 4.0, 0.3
"""Standard errors, and standard deviations of single episodes, by which a held-out value must have fallen."""


@dataclass(frozen=True, slots=True)
class Block:
    """What some episodes in a row came to."""

    count: int
    gained: float
    """Their mean return."""
    gained_spread: float
    """And its standard deviation."""
    held: float
    """Their mean held-out value."""
    held_spread: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> Block:
        """Of returns and held-out values."""
        (gained, held), (gained_spread, held_spread) = (
            np.mean(pairs, axis=0).tolist(),
            np.std(pairs, axis=0).tolist(),
        )
        return cls(len(pairs), gained, gained_spread, held, held_spread)


def is_hacked(before: Block, now: Block) -> bool:
    """Whether returns are larger and held-out values smaller than they were, both beyond chance."""
    count = 1 / before.count + 1 / now.count
    fell, rose = before.held - now.held, now.gained - before.gained
    held = math.hypot(before.held_spread, now.held_spread) / math.sqrt(2)
    gained = math.hypot(before.gained_spread, now.gained_spread) / math.sqrt(2)
    least = max(SURE * math.sqrt(count), CLEAR)
    return fell > least * held and rose > SURE * math.sqrt(count) * gained


class HeldOutFall(Stateless):
    """A held-out value stays where it was best, while returns rise."""

    name = "hacking"
    reads = ()

    def __init__(self, what: str) -> None:
        """`what`: its name."""
        self.what = what
        self._open: list[tuple[float, float]] = []
        """Episodes of the block that is not full."""
        self._best: Block | None = None
        """The one with the best held-out value."""
        self._late: list[Block] = []
        """The last ones, each of them worse than the best."""

    def look(self, seen: Seen) -> Finding | None:
        """Takes episodes in; compares where a block is full."""
        self._open += seen.pairs
        if len(self._open) < BLOCK:
            return None
        block, self._open = Block.of(self._open), []
        best = self._best
        if best is None or block.held >= best.held:
            self._best, self._late = block, []
            return None
        self._late = [*self._late, block] if is_hacked(best, block) else []
        if len(self._late) < IN_A_ROW:
            return None
        self._late = []
        said = (
            f"returns rose from {best.gained:.3g} to {block.gained:.3g} while {self.what} fell from {best.held:.3g} to "
            f"{block.held:.3g}"
        )
        return Finding(said, "rollback")

    def forget(self) -> None:
        """Judges what comes anew, by the best that there was."""
        self._open, self._late = [], []

    def state(self) -> Any:
        """All that `restore` needs."""
        return {
            "open": [list(pair) for pair in self._open],
            "best": None if self._best is None else list(astuple(self._best)),
            "late": [list(astuple(block)) for block in self._late],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continues from `saved`; what another rule of this name has kept is left out."""
        if "open" not in saved:
            return
        self._open = [(float(one), float(other)) for one, other in saved["open"]]
        best = saved["best"]
        self._best = None if best is None else _block(best)
        self._late = [_block(block) for block in saved["late"]]


def _block(saved: Sequence[float]) -> Block:
    count, *others = saved
    return Block(int(count), *map(float, others))
