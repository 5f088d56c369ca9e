"""Sends under way: the tasks that workers have of each, until all of them are done, by whichever process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.envs.outputs import MAX_VIEWS
from shoal.envs.workers.recovery import Recovery

if TYPE_CHECKING:
    from shoal.envs.outputs import Outputs
    from shoal.envs.workers.faults import Task
    from shoal.envs.workers.last_seen import LastSeen
    from shoal.envs.workers.pool import WorkerPool


class UnderWay:
    """The sends that workers are at, oldest first."""

    def __init__(self, pool: WorkerPool, last_seen: LastSeen, out: Outputs) -> None:
        """`last_seen`: noted only where a fault may be survived."""
        self._pool = pool
        self._last_seen = last_seen
        self._out = out
        self._sends: list[list[Task]] = []
        self._tasks: dict[tuple[int, int], list[Task]] = {}
        self._count = 0
        """Sends since the reset."""
        self.recovery = Recovery(pool, last_seen, out, self._sends)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._sends)

    def begin(self) -> None:
        """A reset: sends are counted from here."""
        self._count = 0

    def clear(self) -> None:
        """Nobody waits for them any more."""
        self._sends.clear()

    def post(self, rows: slice, batch_rows: int) -> None:
        """Hands the workers their parts of a send, which is received in batches of so many rows."""
        self._count += 1
        doing = f"send {self._count} since the reset"
        size = min(batch_rows, rows.stop - rows.start)
        for first in range(rows.start, rows.stop, size):
            tasks = self._tasks_of(first, first + size)
            for task in tasks:
                task.doing = doing
            self._pool.post(tasks)
            self._sends.append(tasks)

    def finish_oldest(self) -> int:
        """Returns 0 when every task of the oldest send is done."""
        while tasks := self._sends[0]:
            faults = self._pool.wait(tasks)
            if not faults:
                break
            self.recovery.settle_all(faults)
        return 0

    def finish_any(self) -> int:
        """Returns the place of the oldest batch among those whose every task is done."""
        while True:
            everything = [task for tasks in self._sends for task in tasks]
            faults = self._pool.look(everything)
            if not faults:
                nth = self._pool.wait_for_one(self._sends)
                if nth < 0:
                    continue
                faults = self._pool.failures(self._sends[nth])
                if not faults:
                    return nth
            self.recovery.settle_all(faults)

    def take(self, nth: int) -> None:
        """The nth send is received; its rows are noted as they are handed over."""
        for task in self._sends.pop(nth):
            if self.recovery.needs_last_seen:
                self._last_seen.note(self._out, task.rows)

    def _tasks_of(self, first: int, last: int) -> list[Task]:
        """The tasks of rows first..last - 1; those of dropped workers have none, and their step is made here."""
        tasks = self._tasks.get((first, last))
        if tasks is None:
            if len(self._tasks) == MAX_VIEWS:
                self._tasks.clear()
            tasks = self._tasks[first, last] = self._pool.tasks(slice(first, last))
        if self._last_seen.dropped[first:last].any():
            return self.recovery.skip_dropped(tasks)
        return tasks
