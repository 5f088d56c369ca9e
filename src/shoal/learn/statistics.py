"""What losses say of each step, summed until somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor


class Statistics:
    """Sums and counts of the statistics of steps, by metric name."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._sums: dict[tuple[str, ...], list[float | Tensor]] = {}
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, stats: tuple[Any, ...], norm: float) -> None:
        """What a loss returned of a step, a NamedTuple of scalars, and its gradient's norm."""
        fields: tuple[str, ...] = cast("Any", stats)._fields
        numbers = (*stats, norm)
        before = self._sums.get(fields, [0.0] * len(numbers))
        self._sums[fields] = [a + b for a, b in zip(before, numbers, strict=True)]
        self._counts[fields] = self._counts.get(fields, 0) + 1

    def take(self) -> tuple[dict[str, float | Tensor], dict[str, int]]:
        """All sums and counts since the last call, which are forgotten."""
        if not self._sums:
            return {}, {}
        totals: dict[str, float | Tensor] = {}
        counts: dict[str, int] = {}
        for fields, sums in self._sums.items():
            for name, total in zip((*fields, "grad_norm"), sums, strict=True):
                metric = f"loss/{name}"
                totals[metric] = totals.get(metric, 0.0) + total
                counts[metric] = counts.get(metric, 0) + self._counts[fields]
        self._sums, self._counts = {}, {}
        return totals, counts
