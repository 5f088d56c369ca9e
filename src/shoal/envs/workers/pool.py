"""A pool of workers: the processes of one environment's rows, and what each of them has to do."""

from __future__ import annotations

import os
import time
import weakref
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from shoal.envs.workers.block import Block, reserve
from shoal.envs.workers.closing import ask_to_close
from shoal.envs.workers.faults import LOOK_S, Fault, Faults, Task
from shoal.envs.workers.pace import Paces
from shoal.envs.workers.pipe import pack
from shoal.envs.workers.processes import Worker, end_all
from shoal.envs.workers.settings import cores_here
from shoal.envs.workers.worker import Op, Plan
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shoal.envs.finite import Tolerance
    from shoal.envs.randomization import Ranges
    from shoal.envs.workers.settings import Workers
    from shoal.types import Spec

SPIN_S = 100e-6
WORKER_SPIN_S = 1e-3
"""A worker offers its core to everybody else while it spins, which costs them nothing that could be measured; to wake
a core that has gone to sleep costs more."""
STARTING = "making its environments"
_STEP = int(Op.STEP)


@dataclass(frozen=True, slots=True)
class RowPlan:
    """What rows in processes are: their name in messages, their declared infos, and what their episodes draw."""

    name: str
    info_keys: tuple[str, ...]
    ranges: Ranges
    tolerance: Tolerance
    """As the row keeper has it."""
    told: bool
    """Whether the user was warned of the environment before."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a new process is told of its rows."""

    factory: bytes
    plan: RowPlan
    settings: Workers
    count: int
    """Of all workers."""
    spin_s: float

    def tell(self, worker: Worker) -> None:
        """Tells a new process."""
        plan = Plan(
            factory=self.factory,
            name=self.plan.name,
            info_keys=self.plan.info_keys,
            ranges=self.plan.ranges,
            tolerance=self.plan.tolerance,
            told=self.plan.told,
            number=worker.number,
            rows=worker.rows,
            cores=self.settings.cores(worker.number, self.count),
            spin_s=self.spin_s,
        )
        worker.send(plan)


class WorkerPool:
    """Workers with contiguous parts of the rows. Nothing of them outlives `close`, or this process."""

    def __init__(
        self,
        factory: Callable[[], Any],
        num_rows: int,
        *,
        plan: RowPlan,
        settings: Workers,
    ) -> None:
        """Starts the processes and gives them their memory."""
        self.settings = settings
        count = settings.count(num_rows)
        bounds = [num_rows * number // count for number in range(count + 1)]
        self.rows = [slice(first, last) for first, last in pairwise(bounds)]
        # Nobody spins on a core that another one needs; a worker gives its core away while it spins.
        spare_cores = len(cores_here()) - count
        self._spin_s = SPIN_S * (spare_cores > 0)
        spin_s = WORKER_SPIN_S * (spare_cores >= 0)
        packed = pack(factory)
        self._introduction = Introduction(packed, plan, settings, count, spin_s)
        self._posted = [0] * count
        self._fd = os.memfd_create("shoal-rows")
        self.workers: list[Worker] = []
        self._at_exit = weakref.finalize(
            self, _release, self.workers, self._fd, os.getpid()
        )
        try:
            for number, rows in enumerate(self.rows):
                self.workers.append(Worker(number, rows, self._fd))
                self._introduction.tell(self.workers[-1])
            self.spec = _agreed(self.workers, settings.start_timeout_s)
            reserve(self._fd, self.spec, num_rows=num_rows, num_workers=count)
            self.block = Block(
                self._fd, self.spec, num_rows=num_rows, num_workers=count
            )
            for worker in self.workers:
                worker.send((num_rows, count))
        except BaseException:
            self._at_exit()
            raise
        self.paces = Paces(self.block.times)
        """How long each worker takes for a step."""
        self._faults = Faults(self.spec.env_id, self.workers, self.block.signals)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._at_exit.alive

    @property
    def num_rows(self) -> int:
        """Rows of all workers."""
        return self.rows[-1].stop

    def tasks(self, rows: slice) -> list[Task]:
        """What each worker has of `rows`."""
        tasks: list[Task] = []
        for number, own in enumerate(self.rows):
            first, last = max(own.start, rows.start), min(own.stop, rows.stop)
            if first < last:
                mine = slice(first, last)
                tasks.append(Task(number, mine, first - own.start, last - own.start))
        return tasks

    def post(self, tasks: Sequence[Task]) -> None:
        """Has the workers step their rows."""
        workers = [task.worker for task in tasks]
        firsts = [task.first for task in tasks]
        lasts = [task.last for task in tasks]
        numbers = self.block.signals.post(_STEP, workers, firsts, lasts)
        now = time.monotonic()
        for task, number in zip(tasks, numbers, strict=True):
            task.number, task.posted_s = number, now
            self._posted[task.worker] = number

    def wait(self, tasks: Sequence[Task], *, timeout_s: float = 0.0) -> list[Fault]:
        """Waits until every task is answered or a worker is found at fault; which ones are."""
        timeout_s = timeout_s or self.settings.step_timeout_s
        begun = time.monotonic()
        while self.wait_for_one([tasks], timeout_s=timeout_s) < 0:
            faults = self._faults.silent(tasks, timeout_s, begun)
            if faults:
                return faults
        return self.failures(tasks)

    def wait_for_one(
        self, batches: Sequence[Sequence[Task]], *, timeout_s: float = LOOK_S
    ) -> int:
        """Waits until every task of one of the batches is answered: its number; -1 after LOOK_S or the time-out."""
        workers: list[int] = []
        numbers: list[int] = []
        for tasks in batches:
            workers += [task.worker for task in tasks]
            numbers += [task.number for task in tasks]
        ends = [*accumulate(map(len, batches))]
        wait_s = min(LOOK_S, timeout_s)
        return self.block.signals.wait(workers, numbers, ends, self._spin_s, wait_s)

    def answered(self, task: Task) -> bool:
        """Whether the task is over."""
        return self._faults.answered(task)

    def look(self, tasks: Sequence[Task]) -> list[Fault]:
        """Which of the workers are gone, or late with what they were posted; it looks once in LOOK_S."""
        return self._faults.look(tasks, self.settings.step_timeout_s)

    def failures(self, tasks: Sequence[Task]) -> list[Fault]:
        """What answered tasks say went wrong."""
        return self._faults.failures(tasks, self.settings.step_timeout_s)

    def ask(self, op: Op, messages: Mapping[int, Any]) -> list[Any]:
        """What these workers answer; the first error in the order of rows is raised."""
        answers, faults = self.ask_each(op, messages)
        for fault in faults:
            raise fault.error
        return list(answers.values())

    def ask_each(
        self, op: Op, messages: Mapping[int, Any], timeout_s: float = 0.0
    ) -> tuple[dict[int, Any], list[Fault]]:
        """What these workers answer, by number, and what went wrong; they work at the same time."""
        asked: list[Task] = []
        for number, message in messages.items():
            task = Task(number, self.rows[number], doing=op.name.lower())
            task.number = self._post(number, op)
            asked.append(task)
            self.workers[number].send(message)
        answers: dict[int, Any] = {}
        faults: list[Fault] = []
        patience_s = self.settings.step_timeout_s
        for task in asked:
            found = self.wait([task], timeout_s=timeout_s)
            if not found:
                worker = self.workers[task.worker]
                try:
                    heard = worker.receive(
                        patience_s, task=task.number, doing=task.doing
                    )
                except Exception as error:
                    found = [Fault(task.worker, error)]
                else:
                    answers[task.worker] = heard
            faults += found
        return answers, faults

    def is_fit(self, number: int) -> bool:
        """Whether a worker is there, has nothing to do, and is alone in its place."""
        alone = not self.block.signals.strayed(number)
        return alone and self.workers[number].alive and self._idle(number)

    def replace(self, number: int) -> None:
        """A new process in the place of a worker's."""
        self.workers[number].end()
        self.block.signals.clear(number)
        self._posted[number] = 0
        fresh = self.workers[number] = Worker(number, self.rows[number], self._fd)
        self._introduction.tell(fresh)
        fresh.receive(self.settings.start_timeout_s, doing=STARTING)
        fresh.send((self.num_rows, len(self.rows)))

    def renew(self) -> None:
        """Waits for what is under way, whatever comes of it, and replaces the processes that are gone."""
        for number, worker in enumerate(self.workers):
            if worker.alive and not self._idle(number):
                self.wait([self._last(number)])
        for number, worker in enumerate(list(self.workers)):
            if self.is_fit(number):
                worker.drain()
            else:
                self.replace(number)

    def close(self) -> None:
        """Ends the processes: asked when the step under way is done, then told, then killed; it takes 4 s at most.

        The first error that an environment's `close` raised is raised when all have ended.
        """
        if not self._at_exit.alive:
            return
        errors = ask_to_close(self.workers, self.block.signals, self._posted)
        self._at_exit()
        for error in errors:
            raise error

    def _post(self, number: int, op: Op) -> int:
        self._posted[number] = self.block.signals.post(int(op), [number], [0], [0])[0]
        return self._posted[number]

    def _idle(self, number: int) -> bool:
        return self.answered(self._last(number))

    def _last(self, number: int) -> Task:
        """What the worker was posted last."""
        task = Task(number, self.rows[number], doing="what was under way")
        task.number = self._posted[number]
        return task


def _agreed(workers: Sequence[Worker], timeout_s: float) -> Spec:
    """The specification that all workers found."""
    specs: list[Spec] = [
        worker.receive(timeout_s, doing=STARTING) for worker in workers
    ]
    for worker, spec in zip(workers, specs, strict=True):
        for what in ("observation_space", "action_space"):
            if getattr(spec, what) != getattr(specs[0], what):
                raise EnvError(
                    f"{spec.env_id}: {worker} has another {what} than row 0; one VecEnv holds one kind"
                )
    return specs[0]


def _release(workers: list[Worker], fd: int, owner: int) -> None:
    """Ends the workers, unless this is a fork of the process that made them."""
    if os.getpid() == owner:
        end_all(workers)
        os.close(fd)
