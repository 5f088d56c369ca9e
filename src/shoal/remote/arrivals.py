"""What servers say of their rows, copied into the arrays of all rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.masks import MaskReader
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
        ready = self.out.view(rows)
        for to, array in zip(arrays_of(self.spec, ready), batch.arrays, strict=True):
            to[...] = array
        ended = np.flatnonzero(ready.terminated | ready.truncated)
        if len(ended):
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

    def _add_masks(self) -> None:
        options = MaskReader(self.spec).size
        self.out.add_masks(np.ones((self.out.reward.size, options), np.bool_))
