"""A crew: the worker processes of one environment, what each has to do, and which of them are at fault."""

from __future__ import annotations

import os
import time
import weakref
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf
from typing import TYPE_CHECKING, Any

from shoal.envs.workers.block import Block, reserve
from shoal.envs.workers.pipe import pack
from shoal.envs.workers.processes import Worker, end_all
from shoal.envs.workers.worker import Op
from shoal.types import ConfigError, EnvError, check_ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.types import Spec

LOOK_S = 0.1
SPIN_S = 100e-6
WORKER_SPIN_S = 1e-3
"""A worker offers its core to everybody else while it spins, which costs them nothing that could be measured; to wake
a core that has gone to sleep costs more."""
_STEP = int(Op.STEP)
POLICIES = ("raise", "restart", "drop")


@dataclass(frozen=True, slots=True)
class Workers:
    """How processes are used, and what follows when one of them dies, hangs or raises."""

    num_workers: int = 0
    """Processes, at most one a row; 0 means one a core. It changes no result."""
    step_timeout_s: float = 60.0
    """Seconds that a worker may take for a step (or a reset) of its rows before it counts as hung."""
    on_fault: str = "raise"
    """raise: the error ends it; restart: a new process takes over, and the episodes of its rows are cut; drop: the
    episodes are cut, and the rest of the rows go on without."""
    max_restarts: int = 3
    """Restarts that each worker has from a reset on; then the error is raised."""

    batch_rows: int = 0
    """Rows that a `recv` hands over, those that are done first: a multiple of a worker's rows and a part of all rows. 0
    means all rows, or those of the oldest send, in the order of sends: only that is reproducible."""
    start_timeout_s: float = 60.0
    """Seconds that a process may take to start and make its environments."""
    own_cores: bool = True
    """Each worker keeps to a share of the cores that no other worker of these rows has, where there are enough."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        if self.on_fault not in POLICIES:
            raise ConfigError(
                f"unknown on_fault {self.on_fault!r}; use {' or '.join(POLICIES)}"
            )
        check_ranges(
            self,
            **dict.fromkeys(("num_workers", "max_restarts", "batch_rows"), (0, inf)),
        )
        check_ranges(
            self, **dict.fromkeys(("step_timeout_s", "start_timeout_s"), (1e-3, inf))
        )

    def count(self, num_rows: int) -> int:
        """Processes for this many rows; ConfigError where batches of `batch_rows` are no whole workers' rows."""
        count, batch = min(self.num_workers or len(_cores()), num_rows), self.batch_rows
        if batch and (
            num_rows % batch or num_rows % count or batch % (num_rows // count)
        ):
            whole = [
                n
                for n in range(1, num_rows + 1)
                if num_rows % n == 0 and batch % (num_rows // n) == 0
            ]
            near = min(whole, key=lambda n: abs(n - count), default=0)
            what = (
                "it must divide num_envs"
                if num_rows % batch
                else f"num_workers={near} would"
            )
            raise ConfigError(
                f"batch_rows={batch} does not fit {num_rows} rows in {count} workers; {what}"
            )
        return count

    def cores(self, worker: int, count: int) -> list[int]:
        """The cores that a worker of `count` may use: its own share, or all where there are fewer than workers.

        A kernel may leave processes that wake each other on one core while another one idles.
        """
        cores = _cores()
        share = [
            core for at, core in enumerate(cores) if at * count // len(cores) == worker
        ]
        return share if self.own_cores and count <= len(cores) else cores


@dataclass(slots=True)
class Part:
    """The rows of a send that one worker steps; the number of that task, and when it was posted."""

    worker: int
    rows: slice
    first: int
    last: int
    """Its rows as the worker counts them."""
    doing: str = ""
    task: int = 0
    posted_s: float = 0.0


@dataclass(slots=True)
class Fault:
    """What happened to a worker."""

    worker: int
    error: BaseException


class Crew:
    """Workers with contiguous parts of the rows. Nothing of them outlives `close`, or this process."""

    def __init__(
        self,
        factory: Callable[[], Any],
        num_rows: int,
        *,
        plan: dict[str, Any],
        settings: Workers,
    ) -> None:
        """Starts the processes and gives them their memory; `plan`: name, info_keys and ranges of the rows."""
        self.settings = settings
        count = settings.count(num_rows)
        bounds = [num_rows * number // count for number in range(count + 1)]
        self.rows = [slice(first, last) for first, last in pairwise(bounds)]
        # Nobody spins on a core that another one needs; a worker gives its core away while it spins.
        self._spin_s = SPIN_S if count < len(_cores()) else 0.0
        self._plan = plan | {"factory": pack(factory)}
        self._plan |= {"spin_s": WORKER_SPIN_S if count <= len(_cores()) else 0.0}
        self._sizes = {"num_rows": num_rows, "num_workers": count}
        self._posted = [0] * count
        self._next_look = 0.0
        self._fd = os.memfd_create("shoal-rows")
        self.workers: list[Worker] = []
        self._at_exit = weakref.finalize(
            self, _release, self.workers, self._fd, os.getpid()
        )
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

    def parts(self, rows: slice) -> list[Part]:
        """What each worker has of `rows`."""
        parts: list[Part] = []
        for number, own in enumerate(self.rows):
            first, last = max(own.start, rows.start), min(own.stop, rows.stop)
            if first < last:
                parts.append(
                    Part(
                        number, slice(first, last), first - own.start, last - own.start
                    )
                )
        return parts

    def post(self, parts: list[Part]) -> None:
        """Has the workers step their parts."""
        workers = [part.worker for part in parts]
        tasks = self._signals.post(
            _STEP,
            workers,
            [part.first for part in parts],
            [part.last for part in parts],
        )
        now = time.monotonic()
        for part, task in zip(parts, tasks, strict=True):
            part.task, part.posted_s = task, now
            self._posted[part.worker] = task

    def wait(self, parts: list[Part], *, timeout_s: float = 0.0) -> list[Fault]:
        """Waits until every part is answered or a worker is found at fault; which ones are."""
        timeout_s = timeout_s or self.settings.step_timeout_s
        begun = time.monotonic()
        while self.wait_for_one([parts], timeout_s=timeout_s) < 0:
            faults = self._silent(parts, timeout_s, begun)
            if faults:
                return faults
        return self.failures(parts)

    def wait_for_one(
        self, batches: list[list[Part]], *, timeout_s: float = LOOK_S
    ) -> int:
        """Waits until every part of one of the batches is answered: its number; -1 after LOOK_S or the time-out."""
        workers = [part.worker for parts in batches for part in parts]
        tasks = [part.task for parts in batches for part in parts]
        ends = [*accumulate(map(len, batches))]
        return self._signals.wait(
            workers, tasks, ends, self._spin_s, min(LOOK_S, timeout_s)
        )

    def look(self, batches: list[list[Part]]) -> list[Fault]:
        """Which of the workers are gone, or late with what they were posted; it looks once in LOOK_S."""
        if time.monotonic() < self._next_look:
            return []
        self._next_look = time.monotonic() + LOOK_S
        return self._silent(
            [part for parts in batches for part in parts], self.settings.step_timeout_s
        )

    def failures(self, parts: list[Part]) -> list[Fault]:
        """What answered parts say went wrong."""
        return [
            self._raised(part)
            for part in parts
            if self._signals.failed(part.worker, part.task)
        ]

    def answered(self, part: Part) -> bool:
        """Whether the part's task is over."""
        return (self._signals.answered(part.worker) - part.task) % 2**32 < 2**31

    def ask(
        self, op: Op, messages: dict[int, Any], timeout_s: float = 0.0
    ) -> list[Any]:
        """What these workers answer; they work at the same time. The first error in the order of rows is raised."""
        asked: list[Part] = []
        for number, message in messages.items():
            asked.append(
                Part(
                    number,
                    self.rows[number],
                    0,
                    0,
                    op.name.lower(),
                    self._post(number, op),
                )
            )
            self.workers[number].send(message)
        answers: list[Any] = []
        errors: list[BaseException] = []
        for part in asked:
            try:
                for fault in self.wait([part], timeout_s=timeout_s):
                    raise fault.error
                answers.append(
                    self.workers[part.worker].receive(
                        self.settings.step_timeout_s, task=part.task
                    )
                )
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
        fresh.receive(self.settings.start_timeout_s)
        fresh.send(self._sizes)

    def renew(self) -> None:
        """Waits for what is under way, whatever comes of it, and replaces the processes that are gone."""
        for number, worker in enumerate(self.workers):
            if worker.alive and not self._idle(number):
                self.wait([self._last(number)])
        for number, worker in enumerate(list(self.workers)):
            if worker.alive and self._idle(number):
                worker.drain()
            else:
                self.replace(number)

    def close(self) -> None:
        """Ends the processes: asked, then told, then killed; it takes 4 s at most."""
        if self._at_exit.alive:
            idle = [
                worker
                for worker in self.workers
                if worker.alive and self._idle(worker.number)
            ]
            for worker in idle:
                self._post(worker.number, Op.CLOSE)
            end_all(self.workers, asked=idle)
            self._at_exit()

    def _post(self, number: int, op: Op) -> int:
        self._posted[number] = self._signals.post(int(op), [number], [0], [0])[0]
        return self._posted[number]

    def _idle(self, number: int) -> bool:
        return self.answered(self._last(number))

    def _last(self, number: int) -> Part:
        return Part(
            number, self.rows[number], 0, 0, "what was under way", self._posted[number]
        )

    def _silent(
        self, parts: list[Part], timeout_s: float, begun: float = 0.0
    ) -> list[Fault]:
        """Faults of parts without an answer whose worker is gone, or late since it was posted (and waited for)."""
        late = time.monotonic() - timeout_s
        silent = [
            part
            for part in parts
            if late >= max(begun, part.posted_s) or not self.workers[part.worker].alive
        ]
        return [
            self._lost(part, timeout_s) for part in silent if not self.answered(part)
        ]

    def _lost(self, part: Part, timeout_s: float) -> Fault:
        """Why there is no answer. A process that hangs is killed here, after it has shown its stack."""
        worker = self.workers[part.worker]
        rows = f"rows {part.rows.start}..{part.rows.stop - 1}, {part.doing}"
        if worker.alive:
            what = f"did not answer for {timeout_s:g} s{worker.stack()}"
            worker.kill()
        else:
            what = worker.death()
        return Fault(
            part.worker,
            EnvError(f"{self.spec.env_id}: {worker}, asked for {rows}, {what}"),
        )

    def _raised(self, part: Part) -> Fault:
        worker = self.workers[part.worker]
        try:
            worker.receive(self.settings.step_timeout_s, task=part.task)
        except Exception as error:
            return Fault(part.worker, error)
        return Fault(part.worker, EnvError(f"{worker} failed without saying why"))

    def _introduce(self, worker: Worker) -> None:
        own = {"number": worker.number, "rows": (worker.rows.start, worker.rows.stop)}
        worker.send(
            self._plan
            | own
            | {"cores": self.settings.cores(worker.number, self._sizes["num_workers"])}
        )

    def _agree(self) -> Spec:
        """The specification that all workers found."""
        specs: list[Spec] = [
            worker.receive(self.settings.start_timeout_s) for worker in self.workers
        ]
        for worker, spec in zip(self.workers, specs, strict=True):
            for what in ("observation_space", "action_space"):
                if getattr(spec, what) != getattr(specs[0], what):
                    raise EnvError(
                        f"{spec.env_id}: {worker} has another {what} than row 0; one VecEnv holds one kind"
                    )
        return specs[0]


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _release(workers: list[Worker], fd: int, owner: int) -> None:
    """Ends the crew, unless this is a fork of the process that made it."""
    if os.getpid() == owner:
        end_all(workers)
        os.close(fd)
