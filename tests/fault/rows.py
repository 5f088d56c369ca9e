"""Stepping rows of `Trouble`, and the ledger of what each of them must have been handed."""

from collections.abc import Callable
from typing import Any

import numpy as np

from shoal.envs.workers.rows import WorkersEnv
from shoal.types import Ready
from tests.fault.troubles import LENGTH

ALL = slice(0, 5)
TIMEOUT_S = 1.0
Rows = Callable[..., WorkersEnv]
Step = tuple[Any, ...]


def step(env: WorkersEnv, count: int = 1) -> Ready:
    ready: Any = None
    for _ in range(count):
        env.send(ALL, np.zeros(5, np.int64))
        ready = env.recv()
    return ready


def keep(ready: Ready, seen: dict[int, list[Step]]) -> None:
    """Notes what each row was handed: observation, reward, flags, and what an end came with."""
    for at, row in enumerate(range(ready.rows.start, ready.rows.stop)):
        ended = bool(ready.terminated[at] or ready.truncated[at])
        last = (ready.final_obs[at].tolist(), ready.episode_length[at], ready.episode_return[at])
        flags = (bool(ready.valid[at]), bool(ready.terminated[at]), bool(ready.truncated[at]))
        seen[row].append((ready.obs[at].tolist(), float(ready.reward[at]), flags, last if ended else None))


def played(env: WorkersEnv, num_steps: int, *, halves: bool) -> dict[int, list[Step]]:
    """Steps all rows; what each row was handed, in order."""
    seen: dict[int, list[Step]] = {row: [] for row in range(5)}
    groups = [slice(1, 4), slice(4, 5), slice(0, 1)] if halves else [ALL]
    for _ in range(num_steps):
        env.send(groups[0], np.zeros(groups[0].stop - groups[0].start, np.int64))
        for group in groups[1:]:
            env.send(group, np.zeros(group.stop - group.start, np.int64))
            keep(env.recv(), seen)
        keep(env.recv(), seen)
    return seen


def check_order(row: int, steps: list[Step]) -> int:
    """No step of a row is lost, comes twice or out of order; returns how often the row was cut."""
    cuts, obs = 0, [row, 0, 1]
    for new, reward, (valid, terminated, truncated), last in steps:
        if valid:
            assert reward == 1
            assert not truncated
            assert terminated == (obs[1] + 1 == LENGTH)
            following = [obs[0], obs[1] + 1, obs[2]]
            assert last == ((following, LENGTH, LENGTH) if terminated else None)
            assert new == ([obs[0], 0, obs[2] + 1] if terminated else following)
        else:
            cuts += 1
            assert (reward, terminated, truncated) == (0, False, True)
            assert last == (obs, obs[1], obs[1])
            assert new[0] != obs[0]
            assert new[1:] == [0, 1]
        obs = new
    return cuts


def check_dropped(row: int, steps: list[Step], count: int) -> None:
    """Steps in order, then a cut, and from then on nothing."""
    check_order(row, steps[:count])
    (obs, *_), (cut, *after) = steps[count - 1], steps[count:]
    assert cut == (obs, 0, (False, False, True), (obs, obs[1], obs[1]))
    assert after == [(obs, 0, (False, False, False), None)] * (len(steps) - count - 1)
