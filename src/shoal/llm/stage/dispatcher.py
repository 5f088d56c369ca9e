"""Hands work to processes, hears them, and replaces those that hang or die; in a thread of its own."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from shoal.envs.workers.processes import Worker, end_all
from shoal.llm.stage.work import Failed
from shoal.llm.stage.worker import Batch, Introduction
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable


MAX_WAIT_S = 1.0
"""The thread looks around once in so many seconds, whatever happens."""
JOIN_S = 2.0
MAX_LOST_STARTS = 3
"""A process may be gone while it starts, as where memory runs out; so many in a row are no accident."""


@dataclass(slots=True)
class Job:
    """One piece of work on its way."""

    key: int
    piece: Any
    tries: int = 0
    """Those that failed."""
    seconds: float = 0.0
    """That it was worked on, all tries together."""
    alone: bool = False
    """It was in a batch whose process ended: next time it goes by itself, so that the guilty one is found."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How processes are used."""

    make: bytes
    """Packed: makes the Work."""
    word: str
    """What a process is called in messages."""
    workers: int
    timeout_s: float
    """For one call."""
    start_timeout_s: float
    """For making it."""


class Process(Worker):
    """A process that works."""

    def __init__(self, terms: Terms, number: int) -> None:
        """Starts it; its first message says how many pieces it takes at once."""
        self._fd = os.memfd_create("shoal-stage")
        try:
            rows = slice(number, number + 1)
            super().__init__(
                number, rows, self._fd, work="shoal.llm.stage.worker", word=terms.word
            )
        finally:
            os.close(self._fd)
        self.batch_size = 0
        """0 until it is there."""
        self.jobs: list[Job] = []
        self.task, self.began_s = 0, time.monotonic()
        self.send(Introduction(terms.make, number, terms.word))

    def __str__(self) -> str:
        """The process in a message."""
        return f"{self._word} {self.number} (pid {self.pid})"

    def give(self, jobs: list[Job]) -> None:
        """Has it work on them."""
        self.jobs, self.began_s = jobs, time.monotonic()
        self.task += 1
        self.send(Batch(self.task, [job.piece for job in jobs]))


@dataclass(slots=True)
class _Queue:
    """Work that waits, and the socket that wakes the thread."""

    waiting: deque[Job] = field(default_factory=deque[Job])
    closing: bool = False


class Dispatcher:
    """Processes, and the thread that serves them."""

    def __init__(
        self,
        terms: Terms,
        heard: Callable[[Job, Any], None],
        broken: Callable[[Exception], None],
    ) -> None:
        """Starts the processes and waits until they have made what works.

        Args:
            terms: how they are used.
            heard: called by the thread with each outcome of a try; it submits again what is to be tried again.
            broken: called by the thread when no process takes the place of one that was lost; it ends then.

        Raises:
            Exception: what making it raised.
            EnvError: a process died while it did, or took too long.
        """
        self._terms, self._heard, self._broken = terms, heard, broken
        self._queue = _Queue()
        self._woken, self._waker = socket.socketpair()
        self._woken.settimeout(0.0)
        self._waker.settimeout(0.0)
        self._processes: list[Process] = []
        self._lost_starts = 0
        """Processes in a row that were gone before they had made what works."""
        try:
            for number in range(terms.workers):
                self._processes.append(Process(terms, number))
            for process in self._processes:
                process.batch_size = process.receive(
                    terms.start_timeout_s, doing="starting"
                )
        except BaseException:
            self._end()
            raise
        self._thread = threading.Thread(
            target=self._run, name="shoal-stage", daemon=True
        )
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Has a piece worked on when its turn comes; one that failed comes first, or what always fails is said late."""
        waiting = self._queue.waiting
        if job.tries:
            waiting.appendleft(job)
        else:
            waiting.append(job)
        self._wake()

    def close(self) -> None:
        """Ends the thread and all processes; what is not done is forgotten."""
        self._queue.closing = True
        self._wake()
        self._thread.join(JOIN_S)
        for process in self._processes:
            process.kill()
        self._thread.join(JOIN_S)
        self._end()

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes]

    def _wake(self) -> None:
        with suppress(OSError):  # full: it is awake; closed: it is over
            self._waker.send(b"\0")

    def _run(self) -> None:
        try:
            while not self._queue.closing:
                self._step()
        except Exception as error:
            if not self._queue.closing:
                self._broken(error)

    def _step(self) -> None:
        """Gives work out, waits for something to happen, and deals with it."""
        for process in self._processes:
            if process.batch_size and not process.jobs and self._queue.waiting:
                process.give(self._next_jobs(process.batch_size))
        heard: list[Any] = [self._woken]
        timeout_s = MAX_WAIT_S
        for process in self._processes:
            if process.jobs or not process.batch_size:
                heard.append(process.pipe)
                timeout_s = min(timeout_s, max(self._left_s(process), 0.0))
        ready = wait(heard, timeout_s)
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        for number, process in enumerate(self._processes):
            if process.pipe in ready:
                self._hear(number, process)
            elif self._left_s(process) <= 0 and not process.pipe.poll():
                what = f"said nothing for {self._limit_s(process):g} s{process.stack()}"
                self._lose(number, process, f"{process} {what}")

    def _next_jobs(self, most: int) -> list[Job]:
        """Those whose turn it is, as many as go into one call."""
        waiting = self._queue.waiting
        jobs = [waiting.popleft()]
        while len(jobs) < most and waiting and not (jobs[0].alone or waiting[0].alone):
            jobs.append(waiting.popleft())
        return jobs

    def _limit_s(self, process: Process) -> float:
        started = process.batch_size > 0
        return self._terms.timeout_s if started else self._terms.start_timeout_s

    def _left_s(self, process: Process) -> float:
        """Seconds until it counts as hung."""
        if not process.jobs and process.batch_size:
            return inf
        return process.began_s + self._limit_s(process) - time.monotonic()

    def _hear(self, number: int, process: Process) -> None:
        try:
            said: Any = process.receive(MAX_WAIT_S, task=process.task)
        except EnvError as error:
            self._lose(number, process, str(error))
            return
        if not process.batch_size:
            process.batch_size = said
            self._lost_starts = 0
            return
        jobs, process.jobs = process.jobs, []
        seconds = time.monotonic() - process.began_s
        for job, outcome in zip(jobs, said, strict=True):
            job.seconds += seconds
            self._heard(job, outcome)

    def _lose(self, number: int, process: Process, why: str) -> None:
        """Replaces a process that hangs or is gone.

        Raises:
            EnvError: several in a row did not come to work.
        """
        process.end()
        if not process.batch_size:
            self._lost_starts += 1
            if self._lost_starts > MAX_LOST_STARTS:
                raise EnvError(f"{why}, while it started once more")
        jobs = process.jobs
        seconds = time.monotonic() - process.began_s
        if not self._queue.closing:
            self._processes[number] = Process(self._terms, process.number)
        for job in jobs:
            job.seconds += seconds
            if len(jobs) > 1:
                job.alone = True
                self._queue.waiting.append(job)
            else:
                self._heard(job, Failed(why))

    def _end(self) -> None:
        end_all(list(self._processes))
        self._woken.close()
        self._waker.close()
