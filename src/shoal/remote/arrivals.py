"""What servers say of their rows, copied into the arrays of all rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from shoal import _native
from shoal.envs.masks import MaskReader
from shoal.envs.outputs import MAX_VIEWS
from shoal.remote.batches import Batch, arrays_of, ready_layout
from shoal.types import EnvError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.envs.outputs import Outputs
    from shoal.remote.messages import RowsReply
    from shoal.types import Bools, Spec, Tree

    Places: TypeAlias = tuple[list[NDArray[Any]], list[Tree], Bools, Bools]
    """Arrays of rows, final observations, and the flags of those that ended."""


class Arrivals:
    """Writes replies into the outputs; whether actions are masked is known after the first."""

    def __init__(self, spec: Spec, out: Outputs) -> None:
        """`out`: the arrays of all rows."""
        self.spec, self.out = spec, out
        self._of_rows: dict[tuple[int, int], Places] = {}
        if spec.masked:
            self._add_masks()

    def write(self, rows: slice, first_row: int, found: RowsReply, server: str) -> None:
        """Copies a reply about `rows` of a server whose first row is `first_row`; EnvError where it is about others."""
        if (found.first + first_row, found.num_rows) != (
            rows.start,
            rows.stop - rows.start,
        ):
            raise EnvError(
                f"the server at {server} answered for rows {found.first} to {found.first + found.num_rows - 1}, not "
                "for those that were stepped"
            )
        if found.masked and not self.spec.masked:
            self._add_masks()
        try:
            finite = _native.unpack_rows(
                found.data,
                found.at,
                found.size,
                found.final_at,
                found.final_size,
                *self._places(rows),
            )
        except ValueError as error:
            raise EnvError(
                f"the server at {server} sent something else than rows: {error}"
            ) from error
        if not finite:
            raise EnvError(
                f"the server at {server} sent observations or rewards that are not finite"
            )

    def first(self, found: RowsReply) -> tuple[Any, Any]:
        """Copies of the observations and masks that a reset gave, which nobody receives yet."""
        if found.masked and not self.spec.masked:
            self._add_masks()
        batch = Batch(ready_layout(self.spec, masked=self.spec.masked), found.num_rows)
        try:
            batch.read(found.data, found.at, found.size, "rows")
        except ValueError as error:
            raise EnvError(
                f"the server sent something else than rows: {error}"
            ) from error
        masks = batch.tree["action_mask"] if self.spec.masked else None
        return batch.tree["obs"], masks

    def _places(self, rows: slice) -> Places:
        """Where the reply about some rows is copied to; made once for slices that come again."""
        place = rows.start, rows.stop
        found = self._of_rows.get(place)
        if found is None:
            if len(self._of_rows) == MAX_VIEWS:
                self._of_rows.clear()
            ready = self.out.view(rows)
            found = self._of_rows[place] = (
                arrays_of(self.spec, ready),
                self.spec.observation.flat(ready.final_obs),
                ready.terminated,
                ready.truncated,
            )
        return found

    def _add_masks(self) -> None:
        """Rows have masks from now on."""
        self.spec = replace(self.spec, masked=True)
        self._of_rows.clear()
        options = MaskReader(self.spec).size
        self.out.add_masks(np.ones((self.out.reward.size, options), np.bool_))
