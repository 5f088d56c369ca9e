"""Work beside the loop: pieces go in, outcomes come out when they are there, and none is lost."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from itertools import islice
from math import inf
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shoal.envs.workers.pipe import pack
from shoal.llm.stage.dispatcher import Dispatcher, Job, Terms
from shoal.llm.stage.work import Failed
from shoal.types import ConfigError, check_ranges, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.llm.stage.work import Work

MAX_WORKERS = 256
Piece = TypeVar("Piece")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class Done(Generic[Outcome]):
    """What came of a piece of work."""

    key: int
    """As it was submitted."""
    outcome: Outcome | Failed
    """Failed: after all its retries."""
    seconds: float
    """That it was worked on, all tries together; of its whole batch where there was one."""
    tries: int
    """Those that failed."""


class StageError(RuntimeError):
    """No process takes the place of one that was lost: nothing more comes of what is pending."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a stage works."""

    workers: int = 0
    """Processes; 0 works in this one, inside `poll`, where nothing can end a call that hangs."""
    timeout_s: float = 60.0
    """Seconds that one call may take; its process is killed then, and another one started."""
    retries: int = 1
    """How often a piece of work that failed is tried again: an exception, a process that hung or died."""
    start_timeout_s: float = 120.0
    """Seconds that a process may take to start."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(
            self,
            workers=(0, MAX_WORKERS),
            retries=(0, 1000),
            timeout_s=(1e-3, inf),
            start_timeout_s=(1e-3, inf),
        )


class Stage(Generic[Piece, Outcome]):
    """Works in processes of its own, or in this one. Every key that is submitted comes back exactly once."""

    def __init__(
        self,
        make: Callable[[], Work],
        settings: Settings,
        *,
        name: str,
        word: str = "worker",
    ) -> None:
        """Makes what works, in every process.

        Args:
            make: makes it.
            settings: how.
            name: whose work it is, in messages: the task's name.
            word: what a process is called in messages.

        Raises:
            ConfigError: `make` cannot go to other processes.
            Exception: what `make` raised.
            EnvError: a process died while it did, or took too long.
        """
        self.name, self.settings = name, settings
        self.num_retries = 0
        """Tries that failed and were made again."""
        self._keys: set[int] = set()
        self._done: deque[Done[Outcome]] = deque()
        self._changed = threading.Condition()
        self._broken: StageError | None = None
        self._own: _InProcess | None = None
        self._elsewhere: Dispatcher | None = None
        if not settings.workers:
            self._own = _InProcess(make(), self._hear)
            return
        terms = Terms(
            _packed(make, name, word),
            word,
            settings.workers,
            settings.timeout_s,
            settings.start_timeout_s,
        )
        self._elsewhere = Dispatcher(terms, self._hear, self._break)

    @property
    def pending(self) -> int:
        """Pieces that were submitted and did not come back yet."""
        return len(self._keys)

    @property
    def pids(self) -> list[int]:
        """Of its processes."""
        return [] if self._elsewhere is None else self._elsewhere.pids

    def submit(self, key: int, piece: Piece) -> None:
        """Has a piece worked on.

        Args:
            key: comes back with what came of it; no two pending pieces share one.
            piece: the work.

        Raises:
            ValueError: the key is pending.
            RuntimeError: the stage is closed.
        """
        if key in self._keys:
            raise ValueError(f"{self.name}: key {key} is pending; keys must be unlike")
        if self._own is None and self._elsewhere is None:
            raise RuntimeError(f"{self.name}: it is closed, and takes no more")
        self._keys.add(key)
        self._submit(Job(key, piece))

    def poll(self, block_s: float = 0.0) -> list[Done[Outcome]]:
        """What is done by now, in the order in which it was.

        Args:
            block_s: how long to wait for the first piece where none is; without processes all that is pending is done
                at once.

        Raises:
            StageError: a process was lost, and none takes its place.
        """
        if self._own is not None:
            self._own.work()
        with self._changed:
            self._changed.wait_for(self._has_news, min(block_s, TIMEOUT_MAX))
            found = [*self._done]
            self._done.clear()
            self._keys.difference_update(done.key for done in found)
            if self._broken is not None and not found:
                raise self._broken
        return found

    def close(self) -> None:
        """Ends all processes, some seconds later at most; what is pending is forgotten."""
        if self._elsewhere is not None:
            self._elsewhere.close()
        self._own = self._elsewhere = None
        with self._changed:
            self._keys.clear()
            self._done.clear()

    def _has_news(self) -> bool:
        return bool(self._done) or self._broken is not None or not self._keys

    def _hear(self, job: Job, outcome: Outcome | Failed) -> None:
        """What came of a try; of processes, in their dispatcher's thread."""
        if isinstance(outcome, Failed):
            job.tries += 1
            if job.tries <= self.settings.retries:
                self.num_retries += 1
                self._submit(job)
                return
        with self._changed:
            self._done.append(Done(job.key, outcome, job.seconds, job.tries))
            self._changed.notify_all()

    def _submit(self, job: Job) -> None:
        if self._own is not None:
            self._own.waiting.append(job)
        elif self._elsewhere is not None:
            self._elsewhere.submit(job)

    def _break(self, error: Exception) -> None:
        broken = StageError(f"{self.name}: {text_of(error)}")
        broken.__cause__ = error
        with self._changed:
            self._broken = broken
            self._changed.notify_all()


class _InProcess:
    """Works in this process."""

    def __init__(self, work: Work, heard: Callable[[Job, Any], None]) -> None:
        self._work, self._heard = work, heard
        self.waiting: deque[Job] = deque()

    def work(self) -> None:
        """Does all that waits, what is tried again included."""
        while self.waiting:
            jobs = [*islice(self.waiting, self._work.batch_size)]
            began = time.monotonic()
            outcomes = self._work.work([job.piece for job in jobs])
            seconds = time.monotonic() - began
            for job, outcome in zip(jobs, outcomes, strict=True):
                self.waiting.popleft()  # not before: an interrupt loses none
                job.seconds += seconds
                self._heard(job, outcome)


def _packed(make: Callable[[], Work], name: str, word: str) -> bytes:
    try:
        return pack(make)
    except Exception as error:
        raise ConfigError(
            f"{name}: its {word} cannot go to other processes ({type(error).__name__}: {text_of(error)}); pass a "
            "function that makes it there, or work in this process (workers=0)"
        ) from error
