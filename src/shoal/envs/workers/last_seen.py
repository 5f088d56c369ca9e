"""What rows in processes had come to, kept by the parent, so that a worker can be replaced or done without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.outputs import take
from shoal.types import assign, map_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.envs.outputs import Outputs
    from shoal.types import Spec


class LastSeen:
    """Rows as they were when they were last handed over, and how often each was lost."""

    def __init__(self, spec: Spec, num_rows: int) -> None:
        """Nothing has begun yet."""
        self.seeds = [0] * num_rows
        self.restarts = [0] * num_rows
        self.obs = spec.observation.allocate(num_rows)
        self.returns = np.zeros(num_rows)
        self.lengths = np.zeros(num_rows, np.int64)
        self.dropped = np.zeros(num_rows, np.bool_)
        self._skipped = np.zeros(num_rows, np.bool_)

    def begin(
        self, out: Outputs, seeds: Sequence[int], restarts: Sequence[int]
    ) -> None:
        """Every row begins with what `out` holds."""
        self.seeds = list(seeds)
        self.restarts = list(restarts)
        assign(self.obs, slice(None), out.obs)
        self.returns[:] = self.lengths[:] = 0
        self.dropped[:] = self._skipped[:] = False

    def note(self, out: Outputs, rows: slice) -> None:
        """Copies what `out` holds of `rows` now."""
        assign(self.obs, rows, take(out.obs, rows))
        going_on = ~(out.terminated[rows] | out.truncated[rows])
        self.returns[rows] = (self.returns[rows] + out.reward[rows]) * going_on
        self.lengths[rows] = (self.lengths[rows] + 1) * going_on

    def of(self, rows: slice) -> dict[str, Any]:
        """What a new process is told of its rows: the seeds that they begin from, and what is cut."""
        seeds: list[int] = []
        for row in range(rows.start, rows.stop):
            drawn = np.random.SeedSequence([self.seeds[row], row, self.restarts[row]])
            seeds.append(int(drawn.generate_state(1, np.uint64)[0]))
        return {
            "seeds": seeds,
            "obs": map_tree(np.copy, take(self.obs, rows)),
            "returns": self.returns[rows].copy(),
            "lengths": self.lengths[rows].copy(),
        }

    def skip(self, out: Outputs, rows: slice) -> None:
        """One step of dropped rows: the first cuts the episode, and then nothing happens any more."""
        out.valid[rows] = out.terminated[rows] = False
        out.reward[rows] = 0
        out.truncated[rows] = ~self._skipped[rows]
        # The process that is gone may have left half a step.
        for tree in (out.obs, out.final_obs):
            assign(tree, rows, take(self.obs, rows))
        out.episode_return[rows] = self.returns[rows]
        out.episode_length[rows] = self.lengths[rows]
        for values in out.info.values():
            values[rows] = np.nan
        if out.action_mask is not None:
            out.action_mask[rows] = True
        self._skipped[rows] = True

    def state(self, spec: Spec, rows: slice) -> dict[str, Any]:
        """A state for rows that have none, which a restore finds to be another: it cuts their episodes."""
        lost = self.of(rows)
        seeds: list[int] = lost.pop("seeds")
        lost["starts"] = [{"seed": seed} for seed in seeds]
        lost["actions"] = [spec.action.allocate(0) for _ in seeds]
        lost["whole"] = np.ones(len(seeds), np.bool_)
        return lost
