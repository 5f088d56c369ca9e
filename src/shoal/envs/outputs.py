"""Outputs: the arrays that a backend writes its rows to, and views of them for those who receive rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from shoal.types import Ready, check_room, map_tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.types import Bools, Spec, Tree

    Rows: TypeAlias = slice | int | list[int] | NDArray[np.integer[Any]] | Bools
    """Which rows, as NumPy indexes an array's first axis."""

MAX_VIEWS = 64
OBS_COPIES = 3
"""A row's observation stands in so many arrays at least: now, at its episode's end, and where it was acted on."""
ROW_BYTES = 128
"""And its numbers and its state take so many bytes at least."""
FEWER = "set num_envs to less"
NUMBERS = {
    "reward": np.float64,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "valid": np.bool_,
    "episode_return": np.float64,
    "episode_length": np.int64,
}
"""What every row has one number of."""


def check_rows(spec: Spec, num_rows: int) -> None:
    """ConfigError where the arrays of so many rows need more memory than there is."""
    _, nbytes = spec.observation.offsets((num_rows,))
    needed = OBS_COPIES * nbytes + ROW_BYTES * num_rows
    check_room(needed, f"{num_rows:,} rows of {spec.env_id}", FEWER)


class Outputs:
    """The arrays [B, ...] that a backend writes its rows to (or puts there), handed over as views."""

    def __init__(self, spec: Spec, num_rows: int) -> None:
        """Zeroed arrays of `num_rows`; declared info values are NaN until an episode ends.

        ConfigError where there is no memory for them.
        """
        check_rows(spec, num_rows)
        self.obs: Tree = spec.observation.allocate(num_rows)
        self.final_obs: Tree = spec.observation.allocate(num_rows)
        self.reward = np.zeros(num_rows)
        self.terminated = np.zeros(num_rows, np.bool_)
        self.truncated = np.zeros(num_rows, np.bool_)
        self.valid = np.ones(num_rows, np.bool_)
        self.episode_return = np.zeros(num_rows)
        self.episode_length = np.zeros(num_rows, np.int64)
        self.info = {key: np.full(num_rows, np.nan) for key in spec.info_keys}
        self.action_mask: Bools | None = None
        self.turn = np.ones(num_rows, np.bool_) if spec.agents else None
        self.game_over = np.zeros(num_rows, np.bool_) if spec.agents else None
        self._views: dict[tuple[int, int], Ready] = {}

    def add_masks(self, masks: Bools) -> None:
        """From now on rows have these action masks [B, options]."""
        self.action_mask = masks
        self._views.clear()

    def put_obs(self, obs: Tree) -> None:
        """From now on rows have these observations, in the views that were handed over too."""
        self.obs = obs
        for ready in self._views.values():
            ready.obs = take(obs, ready.rows)

    def clear(self) -> None:
        """No row has a reward or an end, as after a reset."""
        self.reward[:] = 0
        self.terminated[:] = self.truncated[:] = False
        if self.game_over is not None:
            self.game_over[:] = False

    def view(self, rows: slice) -> Ready:
        """The rows' part of every array; made once for slices that come again."""
        ready = self._views.get((rows.start, rows.stop))
        if ready is None:
            ready = self._make_view(rows)
            if len(self._views) == MAX_VIEWS:
                self._views.clear()
            self._views[rows.start, rows.stop] = ready
        return ready

    def _make_view(self, rows: slice) -> Ready:
        return Ready(
            rows=rows,
            obs=take(self.obs, rows),
            reward=self.reward[rows],
            terminated=self.terminated[rows],
            truncated=self.truncated[rows],
            valid=self.valid[rows],
            final_obs=take(self.final_obs, rows),
            episode_return=self.episode_return[rows],
            episode_length=self.episode_length[rows],
            info={name: values[rows] for name, values in self.info.items()},
            action_mask=None if self.action_mask is None else self.action_mask[rows],
            turn=None if self.turn is None else self.turn[rows],
            game_over=None if self.game_over is None else self.game_over[rows],
        )


def take(tree: Tree, rows: Rows) -> Tree:
    """The chosen rows of every array of a tree: views where `rows` is a slice."""
    if tree.__class__ is np.ndarray:
        return tree[rows]

    def part(array: NDArray[Any]) -> NDArray[Any]:
        return array[rows]

    return map_tree(part, tree)


def write(tree: Tree, rows: Rows, new: Tree) -> None:
    """Copies the chosen rows of every array of `new` into `tree`."""
    if tree.__class__ is np.ndarray:
        tree[rows] = new[rows]
        return

    def put(array: NDArray[Any], values: NDArray[Any]) -> None:
        array[rows] = values[rows]

    map_tree(put, tree, new)
