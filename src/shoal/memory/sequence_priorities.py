"""Priorities of sequences: of those that begin with every so many records of a row, drawn by their last error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoal.types import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.memory.reader import Prioritized
    from shoal.memory.replay import ReplayMemory


class Starts(NamedTuple):
    """Where sequences begin that were drawn."""

    row: NDArray[np.int64]
    """Counted from the first one of the rows."""
    first: NDArray[np.int64]
    """Which of the row's records each begins with."""
    share: NDArray[np.float64]
    """N times the probability of each, of N sequences."""


class SequencePriorities:
    """Of the sequences of some rows: those whose first record's index is a multiple of `stride`.

    P(i) = p_i^alpha / sum_j p_j^alpha (Schaul et al. 2016). A sequence that is new has the greatest priority so far, 1
    at first. Neighbors overlap, so that every step is in some of them and that errors of each are known soon.
    """

    def __init__(
        self,
        memory: ReplayMemory,
        rows: slice,
        *,
        length: int,
        stride: int,
        how: Prioritized,
    ) -> None:
        """Nothing is known yet of sequences of `length` records."""
        self.memory, self.rows, self.length = memory, rows, length
        self.stride, self.how = stride, how
        count = rows.stop - rows.start
        cells = memory.slots // stride + 1
        self._priority = np.zeros((count, cells))
        """Of the newest start of each cell, which are in turn those of a row's."""
        self._seen = np.full(count, -1, np.int64)
        """Of each row the last start that has a priority."""
        self._greatest = 1.0
        self._start = np.zeros((count, cells), np.int64)
        """Which start of the row, counted in strides, each cell holds."""

    def look(self) -> None:
        """Takes in which sequences the rings hold whole now."""
        heads = self.memory.heads[self.rows, 0].astype(np.int64)
        first = -(-np.maximum(heads - self.memory.slots, 0) // self.stride)
        last = (heads - self.length) // self.stride
        cells = self._priority.shape[1]
        behind = (last[:, None] - np.arange(cells)) % cells
        self._start = last[:, None] - behind
        self._priority[self._start > self._seen[:, None]] = self._greatest
        self._priority[self._start < first[:, None]] = 0
        self._seen = np.maximum(self._seen, last)

    def draw(self, rng: np.random.Generator, count: int) -> Starts | None:
        """So many starts by their priorities, after a `look`; None where there is no sequence."""
        mass = (self._priority**self.how.alpha) * (self._priority > 0)
        ends = mass.ravel().cumsum()
        if not ends[-1] > 0:
            return None
        at = np.searchsorted(ends, rng.random(count) * ends[-1], side="right")
        at = np.minimum(at, np.flatnonzero(mass)[-1])
        row, cell = np.divmod(at, mass.shape[1])
        known = int((self._priority > 0).sum())
        index = self._start[row, cell] * self.stride
        return Starts(row, index, mass.ravel()[at] / ends[-1] * known)

    def forget(self, row: NDArray[np.int64], index: NDArray[np.int64]) -> None:
        """Draws these never again: they begin with an episode's last observation."""
        self._priority[row, index // self.stride % self._priority.shape[1]] = 0

    def update(self, keys: NDArray[np.int64], errors: NDArray[np.float32]) -> int:
        """Makes errors + epsilon the priorities of sequences; returns how many of them the rings no longer hold.

        Raises:
            ValueError: an error is NaN, infinite or negative; nothing is changed.
        """
        if not (np.isfinite(errors) & (errors >= 0)).all():
            raise ValueError("priorities need errors that are finite and not negative")
        index, row = np.divmod(keys, self.memory.num_rows)
        row = row - self.rows.start
        start = index // self.stride
        cell = start % self._priority.shape[1]
        heads = self.memory.heads[self.rows, 0].astype(np.int64)
        held = index >= heads[row] - self.memory.slots
        there = held & (self._start[row, cell] == start)
        known = errors[there] + self.how.epsilon
        self._priority[row[there], cell[there]] = known
        self._greatest = max([self._greatest, *known.tolist()])
        return int((~there).sum())

    def state(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {
            "priority": self._priority,
            "seen": self._seen,
            "greatest": self._greatest,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`, when the memory was restored; ConfigError where it is of another memory."""
        priority = np.asarray(state["priority"], np.float64)
        seen = np.asarray(state["seen"], np.int64)
        fits = (priority.shape, seen.shape) == (self._priority.shape, self._seen.shape)
        if not fits or not (np.isfinite(priority) & (priority >= 0)).all():
            raise ConfigError(
                f"the saved priorities of sequences, {list(priority.shape)}, do not fit this memory, "
                f"{list(self._priority.shape)}"
            )
        self._priority, self._seen = priority.copy(), seen.copy()
        self._greatest = float(state["greatest"])
