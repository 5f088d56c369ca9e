"""The row keeper: what rows of any kind keep around a step, whichever way they are stepped."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from shoal.envs.actions import ActionCheck
from shoal.envs.finite import Tolerance
from shoal.envs.in_flight import CALL_RESET, InFlight
from shoal.envs.outputs import Outputs, write
from shoal.types import ConfigError, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from shoal.envs.outputs import Rows
    from shoal.types import Bools, Floats, Ready, Spec, Tree


class RowKeeper:
    """Rows that are stepped when they are received: sends and their actions, outputs, returns and lengths of episodes.

    A backend gives it the function that steps rows. After an error nothing goes on before the next `begin`.
    """

    def __init__(
        self,
        spec: Spec,
        num_rows: int,
        *,
        first_row: int = 0,
        allow: Callable[[slice], None] | None = None,
    ) -> None:
        """`first_row`: the number of the first row in messages; `allow`: ValueError for rows not sent together."""
        self.spec = spec
        self.num_rows = num_rows
        self.first_row = first_row
        self.out = Outputs(spec, num_rows)
        self.returns: Floats = np.zeros(num_rows)
        """Sum of the rewards of each row's episode so far."""
        self.lengths: NDArray[np.int64] = np.zeros(num_rows, np.int64)
        """Steps of each row's episode so far."""
        self.tolerance = Tolerance()
        """What is not refused though it is not finite, or too large for float32."""
        self._in_flight = InFlight(num_rows)
        self._actions: list[Tree] = []
        self._check = ActionCheck(spec)
        self._allow = allow
        self._mask_memory: Bools | None = None

    @property
    def everything(self) -> slice:
        """All rows."""
        return slice(0, self.num_rows)

    @property
    def everywhere(self) -> Bools:
        """True for all rows [B]."""
        return np.ones(self.num_rows, np.bool_)

    @property
    def started(self) -> bool:
        """Whether every row has an episode."""
        return self._in_flight.started

    def move(self, out: Outputs, masks: Bools) -> None:
        """From now on rows are written to `out`, and their action masks, where there are any, to `masks`."""
        self.out = out
        self._mask_memory = masks
        if self.spec.masked:
            out.add_masks(masks)

    def add_masks(self, size: int) -> None:
        """From now on rows have action masks of `size` options."""
        self.spec = replace(self.spec, masked=True)
        if self._mask_memory is None:
            self.out.add_masks(np.ones((self.num_rows, size), np.bool_))
        else:
            self.out.add_masks(self._mask_memory)

    def send(self, rows: slice, action: Tree) -> None:
        """Notes the actions; the step itself happens in `recv`."""
        rows = self._in_flight.send(rows)
        try:
            if self._allow is not None:
                self._allow(rows)
            self._actions.append(self._check.copied(rows, action))
        except ValueError:
            self._in_flight.undo()
            raise

    def recv(self, step: Callable[[slice, Tree], None]) -> Ready:
        """Has `step` step the rows of the oldest send with their actions; or hands over the first observations."""
        rows = self._in_flight.recv()
        if self._actions:
            try:
                step(rows, self._actions.pop(0))
            except BaseException:
                self.stop("a step failed halfway; call reset(seed) or restore(state)")
                raise
        return self.out.view(rows)

    def begin(self) -> None:
        """All rows are ready: after a reset or a restore."""
        self._actions.clear()
        self._in_flight.begin()

    def stop(self, why_not: str = CALL_RESET) -> None:
        """Nothing goes on before the next `begin`."""
        self._actions.clear()
        self._in_flight.stop(why_not)

    def stop_to_restart(self, rows: Bools) -> None:
        """The same before new episodes in `rows`; RuntimeError where others would be left without one."""
        if not (self.started or rows.all()):
            raise RuntimeError("every row must be reset once before some are")
        self.stop()

    def end(self, rows: Rows) -> None:
        """Hands over returns and lengths of episodes that ended; the rows' counts begin anew."""
        self.out.episode_return[rows] = self.returns[rows]
        self.out.episode_length[rows] = self.lengths[rows]

    def restart_counts(self, rows: Rows) -> None:
        """New episodes begin in `rows`."""
        self.returns[rows] = 0
        self.lengths[rows] = 0

    def cut(self, rows: Rows, last_obs: Tree) -> None:
        """Ends episodes as truncated that cannot go on; `last_obs` [B, ...]: the last that was seen of them."""
        out = self.out
        out.truncated[rows] = True
        write(out.final_obs, rows, last_obs)
        self.end(rows)
        for values in out.info.values():
            values[rows] = np.nan

    def state(self) -> dict[str, Tree]:
        """Observations, returns and lengths; RuntimeError while rows are under way."""
        self._in_flight.quiet()
        return {
            "obs": map_tree(np.copy, self.out.obs),
            "returns": self.returns.copy(),
            "lengths": self.lengths.copy(),
        }

    def check_saved(self, state: dict[str, Tree]) -> None:
        """ConfigError unless a state was saved of as many rows with such observations."""
        count, theirs = len(state["lengths"]), map_tree(np.shape, state["obs"])
        ours = map_tree(np.shape, self.out.obs)
        if count != self.num_rows or theirs != ours:
            raise ConfigError(
                f"{self.spec.env_id}: the saved state holds {count} rows with observations {theirs}, "
                f"but this environment has {ours}"
            )
        for number, actions in enumerate(state.get("actions", ())):
            if not self._check.allows(actions):
                raise ConfigError(
                    f"{self.spec.env_id}: the saved episode {number} holds an action outside "
                    f"{self.spec.action_space}: it is another environment's, or the file was altered"
                )

    def where(self, row: int, step: int) -> str:
        """Names the environment, a row and the step of its episode, 0 for the reset."""
        when = f"at step {step} of its episode" if step else "at its reset"
        return f"{self.spec.env_id}: row {self.first_row + row} {when}"

    def now(self, row: int) -> str:
        """Names the environment, a row and the last step of its episode."""
        return self.where(row, int(self.lengths[row]))
