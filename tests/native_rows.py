"""A native pool with the arrays it writes to, for the tests that look at it without a VecEnv."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shoal import _native


@dataclass(frozen=True, slots=True)
class NativeRows:
    """The pool and its attached arrays."""

    pool: _native.Pool
    obs: NDArray[np.float32]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_obs: NDArray[np.float32]
    episode_return: NDArray[np.float64]
    episode_length: NDArray[np.int64]

    def reset(self, seeds: list[int]) -> None:
        """Seeds and resets every row."""
        self.pool.reset(np.array(seeds, np.uint64))

    def step(self, actions: NDArray[np.int64] | NDArray[np.float32]) -> None:
        """Steps every row and waits."""
        self.pool.send(0, 0, self.pool.num_rows, actions)
        self.pool.recv(0)


def native_rows(env_id: str, num_rows: int, *, num_threads: int = 1, **params: float) -> NativeRows:
    """A pool of `num_rows` with fresh arrays, not reset yet."""
    pool = _native.Pool(env_id, num_rows, num_threads, params)
    rows = NativeRows(
        pool=pool,
        obs=np.zeros((num_rows, pool.obs_size), np.float32),
        reward=np.zeros(num_rows, np.float64),
        terminated=np.zeros(num_rows, np.bool_),
        truncated=np.zeros(num_rows, np.bool_),
        final_obs=np.zeros((num_rows, pool.obs_size), np.float32),
        episode_return=np.zeros(num_rows, np.float64),
        episode_length=np.zeros(num_rows, np.int64),
    )
    pool.attach(
        rows.obs,
        rows.reward,
        rows.terminated,
        rows.truncated,
        rows.final_obs,
        rows.episode_return,
        rows.episode_length,
        np.zeros((num_rows, 0)),
    )
    return rows
