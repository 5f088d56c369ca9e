"""Workers are compared with each other by the time that their steps take."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from shoal.envs.registry import make
from shoal.envs.vec_env import slowest_of
from shoal.envs.workers.pace import COLUMNS, Pace, Paces
from shoal.envs.workers.settings import Workers
from tests.contract.toys import Corridor


def test_the_slowest_beside_the_one_in_the_middle() -> None:
    """Now and then a step is interrupted, which says nothing of a worker."""
    numbers = np.zeros((3, COLUMNS))
    paces, workers = Paces(numbers), [Pace(own) for own in numbers]
    assert paces.slowest() is None
    for step in range(40):
        for worker, seconds in zip(workers, (1e-3, 2e-3, 6e-3), strict=True):
            worker.note(seconds * (1 if step % 3 else 50) * 2, 2)
    found = paces.slowest()
    assert found is not None
    assert abs(found - 3) < 1e-9
    assert paces.slowest() is None


class Late(Corridor):
    """Rows whose seed is small take longer."""

    late = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.late = self.late if seed is None else seed < 2
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        time.sleep(0.01 if self.late else 0.0005)
        return super().step(action)


def test_a_worker_that_is_slow_is_seen() -> None:
    rows = make(Late, 6, backend="workers", workers=Workers(num_workers=3))
    try:
        rows.reset(0)
        rows.recv()
        for _ in range(8):
            rows.send(slice(0, 6), np.ones(6, np.int64))
            rows.recv()
        found = slowest_of(rows)
    finally:
        rows.close()
    assert found is not None
    assert found > 4
