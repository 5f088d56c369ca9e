"""Closing: workers are asked to close their environments, and heard out, before they are ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shoal.envs.workers.worker import Op

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from shoal import _native
    from shoal.envs.workers.processes import Worker

CLOSE_S, TERM_S = 1.5, 0.5
HEAR_S = 2e-3
DEPTH = 2
"""Tasks that a worker may have under way."""


def ask_to_close(
    workers: Collection[Worker], signals: _native.Signals, posted: Sequence[int]
) -> list[Exception]:
    """Asks each that is there, as soon as it may have another task; then sends a SIGTERM. It takes 2 s at most.

    Args:
        workers: all of them.
        signals: theirs.
        posted: the number of each one's last task.

    Returns:
        What environments raised in `close`, in the order of rows.
    """
    deadline = time.monotonic() + CLOSE_S
    waiting = [worker for worker in workers if worker.alive]
    asked: dict[Worker, int] = {}
    while waiting and time.monotonic() < deadline:
        for worker in waiting:
            number = worker.number
            if posted[number] - signals.answered(number) < DEPTH:
                [task] = signals.post(int(Op.CLOSE), [number], [0], [0])
                asked[worker] = task
        waiting = [worker for worker in waiting if worker not in asked]
        if waiting:
            _hear(waiting, time.monotonic() + HEAR_S)
    _hear(asked, deadline)
    for worker in asked:
        worker.terminate()
    _hear(asked, time.monotonic() + TERM_S)
    found = [worker.kept_failure(task) for worker, task in asked.items()]
    return [error for error in found if error is not None]


def _hear(workers: Collection[Worker], deadline: float) -> None:
    """Waits until they have ended, or for the deadline, and keeps what they say meanwhile."""
    while any(worker.alive for worker in workers) and time.monotonic() < deadline:
        for worker in workers:
            worker.drain()
        time.sleep(HEAR_S)
    for worker in workers:
        worker.drain()
