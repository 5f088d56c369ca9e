"""The rows of one worker: Python rows in shared memory, which also take the place of rows that were lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.types import map_tree, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.envs.serial import SerialEnv
    from shoal.envs.workers.block import Block
    from shoal.types import Tree


class WorkerRows:
    """A worker's rows. After another process died with them, the next step of each only cuts its episode."""

    def __init__(self, rows: SerialEnv, block: Block, place: slice) -> None:
        """`place`: where the rows stand in the shared arrays, which they write to from now on."""
        self.rows = rows
        self._cut_seeds: dict[int, int] = {}
        """The rows that wait to be cut, and the seeds of the episodes that begin then."""
        self._last_obs: Tree = None
        self._revived = False
        rows.keeper.move(block.outputs(place), block.masks[place])

    def begin(self, seeds: Sequence[int]) -> bool:
        """Resets every row; whether their actions are masked."""
        self._cut_seeds.clear()
        self.rows.out.valid[:] = True
        self.rows.reset(seeds)
        self.rows.recv()
        return self.rows.spec.masked

    def state(self) -> dict[str, Any]:
        """As the rows' own."""
        return self.rows.state()

    def resume(self, state: dict[str, Any]) -> tuple[bool, list[str]]:
        """Continues every row from `state`; whether actions are masked, and what could not be continued."""
        self._cut_seeds.clear()
        self.rows.out.valid[:] = True
        lost = self.rows.restore(state)
        self.rows.recv()
        return self.rows.spec.masked, lost

    def revive(self, lost: dict[str, Any]) -> None:
        """Takes the place of a process that is gone.

        Args:
            lost: `seeds` of the episodes that begin when the rows are stepped next; the last `obs`, `returns` and
                `lengths` of those that are cut then.
        """
        keeper = self.rows.keeper
        self._revived = True
        self._cut_seeds = dict(enumerate(lost["seeds"]))
        self._last_obs = lost["obs"]
        for row, seed in self._cut_seeds.items():
            self.rows.history.begin(row, {"seed": seed})
        keeper.returns[:], keeper.lengths[:] = lost["returns"], lost["lengths"]
        keeper.begin()
        self.rows.recv()

    def step(self, rows: slice, action: Tree) -> None:
        """Steps `rows` with actions that the parent has checked; those that wait to be cut are cut and not stepped."""
        if self._revived:
            self.rows.out.valid[rows] = True
        if not self._cut_seeds:
            self.rows.steps.step(rows, map_tree(np.copy, action))
            return
        for row in range(rows.start, rows.stop):
            if row in self._cut_seeds:
                self._cut(row)
            else:
                at = row - rows.start
                own = map_tree(np.copy, select(action, slice(at, at + 1)))
                self.rows.steps.step(slice(row, row + 1), own)

    def close(self) -> None:
        """Closes every environment."""
        self.rows.close()

    def _cut(self, row: int) -> None:
        """Ends the episode of a lost row as truncated; a fresh one begins."""
        env, out = self.rows, self.rows.out
        out.valid[row] = out.terminated[row] = False
        out.reward[row] = 0
        env.keeper.cut(row, self._last_obs)
        start = {"seed": self._cut_seeds.pop(row)}
        env.resets.begin(np.array([row]), [start])
        env.masks.discover(env.resets.infos[row : row + 1])
        env.steps.read_masks(slice(row, row + 1))
