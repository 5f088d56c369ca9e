"""Steps from outside a run in a memory of their own: a data set, and what is inserted while the run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.memory.replay import ReplayMemory
from shoal.memory.replay_state import restore_into, state_of
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.memory.data import Data
    from shoal.memory.replay_steps import StepArrays
    from shoal.types import Spec


class Outside:
    """A memory that the run's own steps never enter: a data set's ring, which nothing overwrites, and one for inserts.

    Where the second one is full, the steps that were inserted first are overwritten.
    """

    def __init__(
        self, spec: Spec, *, data: Data | None = None, size: int = 0, least: int = 1
    ) -> None:
        """A memory of all of `data`, with room for `size` records to be inserted.

        Args:
            spec: what rows observe and do.
            data: the data set; None: none.
            size: records of inserted steps, final observations among them; 0: nothing can be inserted.
            least: records that each ring has room for, whatever it holds.

        Raises:
            ConfigError: it does not fit into memory.
        """
        rows = (data is not None) + (size > 0)
        least = max(least, size)
        if data is None:
            self.memory = ReplayMemory(spec, rows, capacity=rows * least)
        else:
            self.memory = data.memory(spec, least=least, num_rows=rows)
        self._row = rows - 1 if size else None
        """The ring of what is inserted."""

    @property
    def num_inserted(self) -> int:
        """Steps that were ever inserted."""
        return 0 if self._row is None else int(self.memory.heads[self._row, 1])

    @property
    def empty(self) -> bool:
        """Whether there is no step to draw."""
        return not self.memory.heads.any()

    def insert(self, steps: StepArrays) -> int:
        """Appends steps [T, 1] behind those that were inserted before; returns how many there were.

        Raises:
            ConfigError: nothing can be inserted, or they are more than there is room for; nothing is stored.
            RuntimeError: another thread is inserting.
        """
        if self._row is None:
            raise ConfigError(NO_ROOM)
        ended = int((steps.terminated | steps.truncated).sum())
        records = len(steps.reward) + ended * self.memory.form.frames
        slots = self.memory.slots
        if records > slots:
            raise ConfigError(
                f"{len(steps.reward):,} steps, {ended:,} of them ends, need {records:,} records, and there is room for "
                f"{slots:,}: set replay.inserted_size to at least {records:,}, or insert less"
            )
        return self.memory.insert_steps(steps, first_row=self._row)

    def state(self) -> dict[str, Any]:
        """What was inserted; a data set is read again."""
        if self._row is None:
            return {}
        return state_of(self.memory, first_row=self._row)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Holds what had been inserted; ConfigError where that is another memory's, or damaged."""
        if self._row is not None:
            restore_into(self.memory, state, first_row=self._row)


NO_ROOM = (
    "there is no room for steps from outside: set replay.inserted_size to as many as are to be kept, and data_fraction "
    "to their share of each batch"
)
