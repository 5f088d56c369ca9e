"""Recovery: after a fault its error is raised, or a new process takes the worker's place, or the rows go on without."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from shoal.envs.workers.worker import Op
from shoal.types import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shoal.envs.outputs import Outputs
    from shoal.envs.workers.faults import Fault, Task
    from shoal.envs.workers.last_seen import LastSeen
    from shoal.envs.workers.pool import WorkerPool

_LOG = logging.getLogger(__name__)


class Recovery:
    """Does what `on_fault` says about the tasks that are under way."""

    def __init__(
        self,
        pool: WorkerPool,
        last_seen: LastSeen,
        out: Outputs,
        under_way: list[list[Task]],
    ) -> None:
        """`under_way`: the tasks of each send, those of dropped workers taken out here."""
        self._pool = pool
        self._last_seen = last_seen
        self._out = out
        self._under_way = under_way
        self.needs_last_seen = pool.settings.on_fault != "raise"
        """Whether rows must be noted as they were handed over last."""

    def settle_all(self, faults: Iterable[Fault]) -> None:
        """Raises a fault's error, or drops its worker, or has a new process take its place."""
        for fault in faults:
            match self._pool.settings.on_fault:
                case "raise":
                    raise fault.error
                case "drop":
                    self._drop(fault)
                case _:
                    self._restart(fault.worker, fault.error)
                    for task in self._tasks_of(fault.worker):
                        self._pool.post([task])

    def begin(
        self, op: Op, messages: Mapping[int, Any], timeout_s: float = 0.0
    ) -> list[Any]:
        """What all workers answer to a reset or a restore.

        Where processes are gone, and `on_fault` is not "raise", others take their places, as `max_restarts` allows.
        """
        settings = self._pool.settings
        answers: dict[int, Any] = {}
        left = settings.max_restarts if settings.on_fault != "raise" else 0
        while True:
            rest = {n: text for n, text in messages.items() if n not in answers}
            found, faults = self._pool.ask_each(op, rest, timeout_s)
            answers |= found
            if not faults:
                return [answers[number] for number in messages]
            for fault in faults:
                if not left or self._pool.is_fit(fault.worker):
                    raise fault.error
            left -= 1
            for fault in faults:
                said = text_of(fault.error)
                _LOG.warning("%s; another process takes its place", said)
                self._pool.replace(fault.worker)

    def states(self) -> dict[int, Any]:
        """The states of the workers that are not dropped, by number; a process that is gone is a fault of its rows."""
        while True:
            alive = [
                number
                for number, rows in enumerate(self._pool.rows)
                if not self._last_seen.dropped[rows].any()
            ]
            found, faults = self._pool.ask_each(Op.STATE, dict.fromkeys(alive))
            if not faults:
                return found
            for fault in faults:
                if self._pool.is_fit(fault.worker):
                    raise fault.error
            self.settle_all(faults)

    def skip_dropped(self, tasks: list[Task]) -> list[Task]:
        """The tasks of workers that are there; rows of dropped ones have their step here."""
        dropped = self._last_seen.dropped
        kept: list[Task] = []
        for task in tasks:
            if dropped[task.rows.start]:
                self._last_seen.skip(self._out, task.rows)
            else:
                kept.append(task)
        return kept

    def _restart(self, number: int, error: BaseException) -> None:
        """A new process for the worker's rows, and another one where that dies at once, as long as the budget lasts."""
        last_seen, rows = self._last_seen, self._pool.rows[number]
        most = self._pool.settings.max_restarts
        for count in range(last_seen.restarts[rows.start], most):
            _LOG.warning("%s; restart %d of %d", text_of(error), count + 1, most)
            last_seen.restarts[rows] = [count + 1] * (rows.stop - rows.start)
            try:
                self._pool.replace(number)
                self._pool.ask(Op.REVIVE, {number: last_seen.of(rows)})
                return
            except Exception as again:
                error = again
        error.add_note(f"shoal: after {most} restarts, as max_restarts allows")
        raise error

    def _drop(self, fault: Fault) -> None:
        """Goes on without the worker and its rows, as long as there are others."""
        last_seen, rows = self._last_seen, self._pool.rows[fault.worker]
        self._pool.workers[fault.worker].end()
        last_seen.dropped[rows] = True
        if last_seen.dropped.all():
            fault.error.add_note(
                "shoal: it was the last worker; all others were dropped before"
            )
            raise fault.error
        left = int((~last_seen.dropped).sum())
        said = text_of(fault.error)
        _LOG.warning("%s; it is dropped, and %d rows go on", said, left)
        for task in self._tasks_of(fault.worker):
            last_seen.skip(self._out, task.rows)
        for at, tasks in enumerate(self._under_way):
            self._under_way[at] = [x for x in tasks if x.worker != fault.worker]

    def _tasks_of(self, number: int) -> list[Task]:
        """What a worker at fault was to do from then on: what it may have done after its fault does not count."""
        found: list[Task] = []
        for tasks in self._under_way:
            found += [task for task in tasks if task.worker == number]
        return found
