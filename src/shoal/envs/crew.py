"""A crew: the worker processes of one environment, what each has to do, and which of them are at fault."""

from __future__ import annotations

import os
import time
import weakref
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from shoal.envs.block import Block, reserve
from shoal.envs.pipe import pack
from shoal.envs.processes import START_S, Worker, end_all
from shoal.envs.worker import Op
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.types import Spec

LOOK_S = 0.1
SPIN_S = 100e-6
POLICIES = ("raise", "restart")


@dataclass(frozen=True, slots=True)
class Workers:
    """How processes are used, and what follows when one of them dies, hangs or raises."""

    num_workers: int = 0
    """Processes, at most one a row; 0 means one a core. It changes no result."""
    step_timeout_s: float = 60.0
    """Seconds that a worker may take for a step (or a reset) of its rows before it counts as hung."""
    on_fault: str = "raise"
    """raise: the error ends it; restart: a new process takes over, and the episodes of its rows are cut."""
    max_restarts: int = 3
    """Restarts that each worker has from a reset on; then the error is raised."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        if self.on_fault not in POLICIES:
            raise ConfigError(f"unknown on_fault {self.on_fault!r}; use {' or '.join(POLICIES)}")
        if self.num_workers < 0 or self.max_restarts < 0 or not self.step_timeout_s > 0:
            raise ConfigError(
                "num_workers and max_restarts must be at least 0 and step_timeout_s above 0, "
                f"got {self.num_workers}, {self.max_restarts} and {self.step_timeout_s}"
            )

    def count(self, num_rows: int) -> int:
        """Processes for this many rows."""
        return min(self.num_workers or _cores(), num_rows)


@dataclass(slots=True)
class Part:
    """The rows of a send that one worker steps, and the number of that task."""

    worker: int
    rows: slice
    task: int = 0


@dataclass(slots=True)
class Fault:
    """What happened to a worker."""

    worker: int
    error: BaseException


class Crew:
    """Workers with contiguous parts of the rows. Nothing of them outlives `close`, or this process."""

    def __init__(self, factory: Callable[[], Any], num_rows: int, *, plan: dict[str, Any], settings: Workers) -> None:
        """Starts the processes and gives them their memory; `plan`: name, info_keys and ranges of the rows."""
        self.settings = settings
        count = settings.count(num_rows)
        bounds = [num_rows * number // count for number in range(count + 1)]
        self.rows = [slice(first, last) for first, last in pairwise(bounds)]
        # Nobody spins on a core that another one needs; a worker gives its core away while it spins.
        self._spin_s = SPIN_S if count < _cores() else 0.0
        self._plan = plan | {"factory": pack(factory)}
        self._plan |= {"spin_s": SPIN_S if count <= _cores() else 0.0}
        self._sizes = {"num_rows": num_rows, "num_workers": count}
        self._posted = [0] * count
        self._fd = os.memfd_create("shoal-rows")
        self.workers: list[Worker] = []
        self._at_exit = weakref.finalize(self, _release, self.workers, self._fd, os.getpid())
        try:
            for number, rows in enumerate(self.rows):
                self.workers.append(Worker(number, rows, self._fd))
                self._introduce(self.workers[-1])
            self.spec = self._agree()
            reserve(self._fd, self.spec, **self._sizes)
            self.block = Block(self._fd, self.spec, **self._sizes)
            for worker in self.workers:
                worker.send(self._sizes)
        except BaseException:
            self._at_exit()
            raise
        self._signals = self.block.signals

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._at_exit.alive

    def post(self, part: Part) -> Part:
        """Has the part's worker step the part's rows."""
        first = self.rows[part.worker].start
        part.task = self._post(part.worker, Op.STEP, part.rows.start - first, part.rows.stop - first)
        return part

    def wait(self, parts: list[Part], *, doing: str, timeout_s: float = 0.0) -> list[Fault]:
        """Waits until every part is answered or a worker is found at fault; which ones are."""
        timeout_s = timeout_s or self.settings.step_timeout_s
        numbers, tasks = [part.worker for part in parts], [part.task for part in parts]
        deadline = time.monotonic() + timeout_s
        while not self._signals.wait(numbers, tasks, self._spin_s, min(LOOK_S, timeout_s)):
            late = time.monotonic() >= deadline
            silent = [part for part in parts if late or not self.workers[part.worker].alive]
            silent = [part for part in silent if not self.answered(part)]
            if silent:
                return [self._lost(part, doing, timeout_s) for part in silent]
        failed = [part for part in parts if self._signals.failed(part.worker, part.task)]
        return [self._raised(part) for part in failed]

    def stepped(self, part: Part) -> bool:
        """Whether the part's rows were stepped and nothing was wrong."""
        return self.answered(part) and not self._signals.failed(part.worker, part.task)

    def answered(self, part: Part) -> bool:
        """Whether the part's task is over."""
        return (self._signals.answered(part.worker) - part.task) % 2**32 < 2**31

    def ask(self, op: Op, messages: dict[int, Any], timeout_s: float = 0.0) -> list[Any]:
        """What these workers answer; they work at the same time. The first error in the order of rows is raised."""
        asked: list[Part] = []
        for number, message in messages.items():
            asked.append(Part(number, self.rows[number], self._post(number, op, 0, 0)))
            self.workers[number].send(message)
        answers: list[Any] = []
        errors: list[BaseException] = []
        for part in asked:
            try:
                for fault in self.wait([part], doing=op.name.lower(), timeout_s=timeout_s):
                    raise fault.error
                answers.append(self.workers[part.worker].receive(START_S, task=part.task))
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return answers

    def replace(self, number: int) -> None:
        """A new process in the place of a worker's."""
        self.workers[number].end()
        self._signals.clear(number)
        self._posted[number] = 0
        fresh = self.workers[number] = Worker(number, self.rows[number], self._fd)
        self._introduce(fresh)
        fresh.receive(START_S)
        fresh.send(self._sizes)

    def renew(self) -> None:
        """Waits for what is under way, whatever comes of it, and replaces the processes that are gone."""
        for number, worker in enumerate(self.workers):
            if worker.alive and not self._idle(number):
                self.wait([Part(number, self.rows[number], self._posted[number])], doing="what was under way")
        for number, worker in enumerate(list(self.workers)):
            if worker.alive and self._idle(number):
                worker.drain()
            else:
                self.replace(number)

    def close(self) -> None:
        """Ends the processes: asked, then told, then killed; it takes 4 s at most."""
        if self._at_exit.alive:
            idle = [worker for worker in self.workers if worker.alive and self._idle(worker.number)]
            for worker in idle:
                self._post(worker.number, Op.CLOSE, 0, 0)
            end_all(self.workers, asked=idle)
            self._at_exit()

    def _post(self, number: int, op: Op, first: int, last: int) -> int:
        self._posted[number] = self._signals.post(number, int(op), first, last)
        return self._posted[number]

    def _idle(self, number: int) -> bool:
        return self.answered(Part(number, self.rows[number], self._posted[number]))

    def _lost(self, part: Part, doing: str, timeout_s: float) -> Fault:
        """Why there is no answer. A process that hangs is killed here, after it has shown its stack."""
        worker = self.workers[part.worker]
        rows = f"rows {part.rows.start}..{part.rows.stop - 1}, {doing}"
        if worker.alive:
            what = f"did not answer for {timeout_s:g} s{worker.stack()}"
            worker.kill()
        else:
            what = worker.death()
        return Fault(part.worker, EnvError(f"{self.spec.env_id}: {worker}, asked for {rows}, {what}"))

    def _raised(self, part: Part) -> Fault:
        worker = self.workers[part.worker]
        try:
            worker.receive(START_S, task=part.task)
        except Exception as error:
            return Fault(part.worker, error)
        return Fault(part.worker, EnvError(f"{worker} failed without saying why"))

    def _introduce(self, worker: Worker) -> None:
        worker.send(self._plan | {"number": worker.number, "rows": (worker.rows.start, worker.rows.stop)})

    def _agree(self) -> Spec:
        """The specification that all workers found."""
        specs: list[Spec] = [worker.receive(START_S) for worker in self.workers]
        for worker, spec in zip(self.workers, specs, strict=True):
            for what in ("observation_space", "action_space"):
                if getattr(spec, what) != getattr(specs[0], what):
                    raise EnvError(f"{spec.env_id}: {worker} has another {what} than row 0; one VecEnv holds one kind")
        return specs[0]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _release(workers: list[Worker], fd: int, owner: int) -> None:
    """Ends the crew, unless this is a fork of the process that made it."""
    if os.getpid() == owner:
        end_all(workers)
        os.close(fd)
