"""Counts: steps of plain finite arrays and numbers, put into the rows' arrays and added up in one native call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal import _native

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shoal.envs.outputs import Outputs
    from shoal.envs.row_keeper import RowKeeper


class Counts:
    """Returns, lengths and time limits of rows that Python steps one by one."""

    def __init__(
        self, keeper: RowKeeper, limits: NDArray[np.int64], *, plain: bool
    ) -> None:
        """`limits`: steps after which each row's episode is truncated; `plain`: observations are one array."""
        self._keeper, self._limits, self._plain = keeper, limits, plain
        self._out: Outputs | None = None
        self._native: Any = None

    def step(self, first: int, seen: list[Any], rewards: list[Any]) -> int:
        """Takes a step of the rows from `first` on.

        Returns:
            1 where some came to their limits, which are truncated, 0 where none did; no row is terminated. -1, and
            nothing is counted, where something is to be looked at more closely.
        """
        if not self._plain:
            return -1
        keeper, out = self._keeper, self._keeper.out
        if self._out is not out:
            given = out, keeper.returns, keeper.lengths, self._limits
            self._native, self._out = _native.Account(*given), out
        return self._native.step(first, seen, rewards, keeper.tolerance.largest_reward)
