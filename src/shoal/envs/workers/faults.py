"""Faults: which workers are gone, hang or say that their environment failed, and how a message tells it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoal import _native
    from shoal.envs.workers.processes import Worker

LOOK_S = 0.1
"""Workers without an answer are looked at once in so many seconds."""


@dataclass(slots=True)
class Task:
    """The rows of a send that one worker steps; its number at that worker, and when it was posted."""

    worker: int
    rows: slice
    first: int = 0
    last: int = 0
    """Its rows as the worker counts them."""
    doing: str = ""
    number: int = 0
    posted_s: float = 0.0


@dataclass(slots=True)
class Fault:
    """What happened to a worker."""

    worker: int
    error: BaseException


class Faults:
    """Finds the workers at fault among those that have something to do."""

    def __init__(
        self, env_id: str, workers: Sequence[Worker], signals: _native.Signals
    ) -> None:
        """`workers`: as they are now, by number."""
        self._env_id = env_id
        self._workers = workers
        self._signals = signals
        self._next_look = 0.0

    def answered(self, task: Task) -> bool:
        """Whether the task is over."""
        return self._signals.answered(task.worker) >= task.number

    def look(self, tasks: Iterable[Task], timeout_s: float) -> list[Fault]:
        """Which of the workers are gone, or late with what they were posted; it looks once in LOOK_S."""
        if time.monotonic() < self._next_look:
            return []
        self._next_look = time.monotonic() + LOOK_S
        return self.silent(tasks, timeout_s)

    def silent(
        self, tasks: Iterable[Task], timeout_s: float, begun: float = 0.0
    ) -> list[Fault]:
        """Faults of tasks without an answer whose worker is gone, or late since it was posted (and waited for)."""
        late = time.monotonic() - timeout_s
        silent: list[Task] = []
        for task in tasks:
            is_late = late >= max(begun, task.posted_s)
            if is_late or not self._workers[task.worker].alive:
                silent.append(task)
        return [self._lost(x, timeout_s) for x in silent if not self.answered(x)]

    def failures(self, tasks: Iterable[Task], timeout_s: float) -> list[Fault]:
        """What answered tasks say went wrong."""
        failed = self._signals.failed
        bad = [task for task in tasks if failed(task.worker, task.number)]
        return [self._raised(task, timeout_s) for task in bad]

    def _lost(self, task: Task, timeout_s: float) -> Fault:
        """Why there is no answer. A process that hangs is killed here, after it has shown its stack."""
        worker = self._workers[task.worker]
        rows = f"rows {task.rows.start}..{task.rows.stop - 1}, {task.doing}"
        if worker.alive:
            what = f"did not answer for {timeout_s:g} s{worker.stack()}"
            worker.kill()
        else:
            what = worker.death()
        error = EnvError(f"{self._env_id}: {worker}, asked for {rows}, {what}")
        return Fault(task.worker, error)

    def _raised(self, task: Task, timeout_s: float) -> Fault:
        worker = self._workers[task.worker]
        try:
            worker.receive(timeout_s, task=task.number)
        except Exception as error:
            return Fault(task.worker, error)
        return Fault(task.worker, EnvError(f"{worker} failed without saying why"))
