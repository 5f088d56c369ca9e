"""Libraries that step all their rows at once, brought to the contract of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.libraries.step_reader import StepReader
from shoal.envs.masks import RowMasks
from shoal.envs.python_env import refuse_stop
from shoal.envs.row_keeper import RowKeeper
from shoal.envs.vec_env import row_seeds
from shoal.types import ConfigError, map_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.envs.libraries.library import Library
    from shoal.envs.outputs import Outputs
    from shoal.envs.vec_env import Capabilities
    from shoal.types import Bools, Ready, Spec, Tree


class BatchedEnv:
    """A library's rows behind the VecEnv contract; all rows are sent and received at once."""

    native_pool = None
    python_rows = None

    def __init__(self, library: Library) -> None:
        """`library`: closed with this object."""
        self.library = library
        self.num_rows = library.num_rows
        self.keeper = RowKeeper(library.spec, self.num_rows, allow=self._allow)
        self._masks = RowMasks(self.keeper, others="its reset gave one")
        self._reader = StepReader(library, self.keeper, self._masks)
        self._seeds = [0] * self.num_rows
        self._steps = 0

    @property
    def spec(self) -> Spec:
        """What a row observes and does."""
        return self.keeper.spec

    @property
    def out(self) -> Outputs:
        """The arrays of all rows."""
        return self.keeper.out

    @property
    def capabilities(self) -> Capabilities:
        """What these rows can do."""
        return self.library.capabilities

    @property
    def dropped(self) -> Bools:
        """No row is ever dropped."""
        return np.zeros(self.num_rows, np.bool_)

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        everywhere = self.keeper.everywhere
        self.restart(row_seeds(seed, self.num_rows), everywhere, held=~everywhere)

    def restart(
        self,
        seeds: Sequence[int | None],
        rows: Bools,
        *,
        held: Bools,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Begins new episodes in some rows; ConfigError for options."""
        if options:
            raise ConfigError(
                f"{self.spec.env_id}: a library's own reset takes no options, got {options}"
            )
        self.keeper.stop_to_restart(rows)
        self.out.clear()
        chosen = rows & ~(held & np.array([seed is None for seed in seeds]))
        if chosen.any():
            self._reset(seeds, chosen)
            self._reader.check_reset()
            for row, seed in enumerate(seeds):
                if seed is not None:
                    self._seeds[row] = int(seed)
            if rows.all():
                self._steps = 0
        self.out.valid[:] = True
        self.keeper.begin()

    def send(self, rows: slice, action: Tree) -> None:
        """Notes the actions of all rows; the step itself happens in `recv`."""
        self.keeper.send(rows, action)

    def recv(self) -> Ready:
        """Steps all rows, or hands over the first observations."""
        return self.keeper.recv(self._step)

    def state(self) -> dict[str, Any]:
        """Observations and counts, and what the library needs to come back to them, if it can."""
        state: dict[str, Any] = self.keeper.state()
        state["seeds"] = np.array(self._seeds, np.uint64)
        state["steps"] = self._steps
        state["library"] = self.library.state()
        return state

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues; a row that cannot is cut as truncated and begins a fresh episode from a seed of its own."""
        keeper = self.keeper
        keeper.check_saved(state)
        keeper.stop()
        self.out.clear()
        self.out.valid[:] = True
        keeper.returns[:], keeper.lengths[:] = state["returns"], state["lengths"]
        self._seeds = [int(seed) for seed in state["seeds"]]
        self._steps = int(state["steps"])
        obs = self.library.restore(state["library"])
        self._reader.note_lives()
        if obs is None:
            lost, why = keeper.everywhere, "cannot be saved"
        else:
            self._reader.show(obs)
            self._masks.discover_joined(self.library.infos)
            self._reader.read_masks(keeper.everywhere)
            lost = self._differing(obs, state["obs"])
            why = "did not come back to its saved observation"
        if lost.any():
            self._cut(lost, state["obs"])
        keeper.begin()
        named = self.spec.env_id
        return [
            f"{named}: row {row} {why}; its episode is cut as truncated"
            for row in np.flatnonzero(lost).tolist()
        ]

    def render(self, row: int) -> NDArray[np.uint8]:
        """What the library draws of a row."""
        return self.library.render(row, self.out.obs)

    def close(self) -> None:
        """Closes the library."""
        self.keeper.stop("the environment is closed")
        self.library.close()

    def _allow(self, rows: slice) -> None:
        if rows != self.keeper.everything:
            raise ConfigError(
                f"{self.spec.env_id}: the library steps its {self.num_rows} rows at once, but rows {rows.start}.."
                f'{rows.stop - 1} were sent alone; use schedule="sync"'
            )

    def _step(self, rows: slice, action: Tree) -> None:
        before: Tree = None
        if self.keeper.tolerance.last_finite:
            before = map_tree(np.copy, self.out.obs)
        try:
            stepped = self.library.step(action)
        except (StopIteration, SystemExit) as error:
            refuse_stop(error, f"{self.spec.env_id}: a step")
            raise
        self._steps += 1
        if before is not None:
            stepped = self._reader.with_last_finite(stepped, before)
        self._reader.step(stepped)

    def _reset(self, seeds: Sequence[int | None], rows: Bools) -> None:
        try:
            obs = self.library.reset(seeds, rows)
        except (StopIteration, SystemExit) as error:
            refuse_stop(error, f"{self.spec.env_id}: a reset")
            raise
        self._reader.show(obs)
        self.keeper.restart_counts(rows)
        self._reader.note_lives()
        self._masks.discover_joined(self.library.infos)
        self._reader.read_masks(rows)

    def _differing(self, obs: Tree, saved: Tree) -> Bools:
        """Rows whose observation is not the saved one."""
        flat = self.spec.observation.flat
        differs = np.zeros(self.num_rows, np.bool_)
        for here, there in zip(flat(obs), flat(saved), strict=True):
            differs |= (here != there).reshape(self.num_rows, -1).any(axis=1)
        return differs

    def _cut(self, rows: Bools, last_obs: Tree) -> None:
        """Ends the episodes of `rows` as truncated, and begins others than the library began with."""
        self.keeper.lengths[rows] = np.maximum(self.keeper.lengths[rows], 1)
        self.keeper.cut(rows, last_obs)
        # One after the other, as some libraries count on from a single seed and take nothing else.
        drawn = np.random.SeedSequence([*self._seeds, self._steps]).generate_state(1)[0]
        first = int(drawn) % 2**30
        self._reset(range(first, first + self.num_rows), rows)
