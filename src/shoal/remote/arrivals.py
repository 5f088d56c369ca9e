"""What servers say of their rows, copied into the arrays of all rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.masks import MaskReader
from shoal.envs.outputs import MAX_VIEWS
from shoal.remote.batches import Batch, Batches, arrays_of, ready_layout
from shoal.types import EnvError, map_tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.envs.outputs import Outputs
    from shoal.types import Spec


class Arrivals:
    """Writes replies into the outputs; whether actions are masked is known after the first."""

    def __init__(self, spec: Spec, out: Outputs) -> None:
        """`out`: the arrays of all rows."""
        self.spec, self.out = spec, out
        self._received = Batches(ready_layout(spec, masked=spec.masked))
        self._of_rows: dict[tuple[int, int], list[NDArray[Any]]] = {}
        if spec.masked:
            self._add_masks()

    def write(self, rows: slice, first_row: int, found: Any, server: str) -> None:
        """Copies a reply about `rows` of a server whose first row is `first_row`; EnvError where it is about others."""
        if (found.first + first_row, found.count) != (
            rows.start,
            rows.stop - rows.start,
        ):
            raise EnvError(
                f"the server at {server} answered for rows {found.first} to {found.first + found.count - 1}, not for "
                "those that were stepped"
            )
        batch = self._read(found)
        for to, array in zip(self._arrays(rows), batch.arrays, strict=True):
            to[...] = array
        if found.final_obs:
            ready = self.out.view(rows)
            ended = np.flatnonzero(ready.terminated | ready.truncated)
            last = Batch(self.spec.observation, len(ended))
            last.read(found.final_obs, "final observations")

            def put(to: NDArray[Any], array: NDArray[Any]) -> None:
                to[ended] = array

            map_tree(put, ready.final_obs, last.tree)

    def first(self, found: Any) -> tuple[Any, Any]:
        """Copies of the observations and masks that a reset gave, which nobody receives yet."""
        tree = self._read(found).tree
        masks = tree["action_mask"].copy() if self.spec.masked else None
        return map_tree(np.copy, tree["obs"]), masks

    def _read(self, found: Any) -> Batch:
        if found.masked and not self.spec.masked:
            self.spec = replace(self.spec, masked=True)
            self._received = Batches(ready_layout(self.spec, masked=True))
            self._add_masks()
        batch = self._received.of(found.count)
        batch.read(found.arrays, "rows")
        return batch

    def _arrays(self, rows: slice) -> list[NDArray[Any]]:
        """The outputs of some rows, in the order of a reply's; made once for slices that come again."""
        place = rows.start, rows.stop
        arrays = self._of_rows.get(place)
        if arrays is None:
            if len(self._of_rows) == MAX_VIEWS:
                self._of_rows.clear()
            arrays = self._of_rows[place] = arrays_of(self.spec, self.out.view(rows))
        return arrays

    def _add_masks(self) -> None:
        self._of_rows.clear()
        options = MaskReader(self.spec).size
        self.out.add_masks(np.ones((self.out.reward.size, options), np.bool_))
