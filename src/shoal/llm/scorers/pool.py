"""Scoring as a stage of its own: answers go in, scores come out when they are there, and none is lost."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Literal, Self

from shoal.envs.workers.pipe import pack
from shoal.llm.scorers.dispatcher import Dispatcher, Job, Terms
from shoal.llm.scorers.score import Failed, Score, ScorerError, batch_size_of, call
from shoal.types import ConfigError, check_ranges, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.llm.scorers.score import Scorer
    from shoal.llm.tasks.task import Prompt

OnFailure = Literal["raise", "zero", "drop"]
POLICIES = ("raise", "zero", "drop")
MAX_WORKERS = 256


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of an answer."""

    key: int
    """As it was submitted."""
    reward: float | None
    """None where the scorer failed and the answer is to be dropped."""
    seconds: float
    """That it was scored, all tries together; of its whole batch where there was one."""
    failure: str | None = None
    """Why there is no score, where the scorer failed."""
    parts: Mapping[str, float] = field(default_factory=dict[str, float])
    """What the reward is made of, for reports."""
    steps: tuple[float, ...] = ()
    """A reward for each step of the answer, of scorers that judge steps."""


class ScorerPool:
    """Scores answers in processes of its own, or in this one. Every key that is submitted comes back exactly once."""

    def __init__(
        self,
        make_scorer: Callable[[], Scorer],
        *,
        name: str = "scorer",
        workers: int = 0,
        timeout_s: float = 60.0,
        retries: int = 1,
        on_failure: OnFailure = "raise",
        start_timeout_s: float = 120.0,
    ) -> None:
        """Makes the scorer, in every process.

        Args:
            make_scorer: makes a function of (prompt, answer), or a Scorer that takes many at once; in each process.
            name: what is scored, in messages: the task's name.
            workers: processes; 0 scores in this one, inside `poll`, where nothing can end a call that hangs.
            timeout_s: seconds that a call of the scorer may take; its process is killed then, and another one started.
            retries: how often a failed answer is scored again: an exception, no finite number, a process that hung or
                died.
            on_failure: then: `raise` a ScorerError in `poll`; `zero`: it earns 0; `drop`: its reward is None.
            start_timeout_s: seconds that a process may take to make its scorer.

        Raises:
            ConfigError: a setting cannot work, or the scorer cannot go to other processes.
            Exception: what making the scorer raised.
            EnvError: a process died while it did, or took too long.
        """
        self.name, self.workers, self.retries = name, workers, retries
        self.timeout_s, self.start_timeout_s = timeout_s, start_timeout_s
        self.on_failure = on_failure
        check_ranges(
            self,
            workers=(0, MAX_WORKERS),
            retries=(0, 1000),
            timeout_s=(1e-3, inf),
            start_timeout_s=(1e-3, inf),
        )
        if on_failure not in POLICIES:
            raise ConfigError(
                f"on_failure is one of {', '.join(POLICIES)}, got {on_failure!r}"
            )
        self.num_failures = 0
        """Answers without a score so far, retries exhausted."""
        self.num_retries = 0
        """Tries that failed and were made again."""
        self._keys: set[int] = set()
        self._done: deque[Scored | ScorerError] = deque()
        self._changed = threading.Condition()
        self._broken: ScorerError | None = None
        self._own: _InProcess | None = None
        self._elsewhere: Dispatcher | None = None
        if not workers:
            self._own = _InProcess(make_scorer(), self._hear)
            return
        terms = Terms(_packed(make_scorer, name), workers, timeout_s, start_timeout_s)
        self._elsewhere = Dispatcher(terms, self._hear, self._break)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pending(self) -> int:
        """Answers that were submitted and did not come back yet."""
        return len(self._keys)

    def submit(self, key: int, prompt: Prompt, answer: str) -> None:
        """Has an answer scored.

        Args:
            key: comes back with the score; no two pending answers share one.
            prompt: what was asked.
            answer: what was said.

        Raises:
            ValueError: the key is pending.
            RuntimeError: the pool is closed.
        """
        if key in self._keys:
            raise ValueError(f"{self.name}: key {key} is pending; keys must be unlike")
        if self._own is None and self._elsewhere is None:
            raise RuntimeError(f"{self.name}: its pool of scorers is closed")
        self._keys.add(key)
        self._submit(Job(key, prompt, answer))

    def poll(self, block_s: float = 0.0) -> list[Scored]:
        """Those answers that are scored by now, in the order in which they were.

        Args:
            block_s: how long to wait for the first one where there is none; without processes all that is pending is
                scored at once.

        Raises:
            ScorerError: with on_failure="raise", an answer could not be scored; what else is pending stays so. Or a
                scorer could not be made again in the place of one that was lost.
        """
        if self._own is not None:
            self._own.work()
        with self._changed:
            self._changed.wait_for(self._has_news, min(block_s, TIMEOUT_MAX))
            found: list[Scored] = []
            while self._done:
                outcome = self._done[0]
                if isinstance(outcome, Scored):
                    found.append(outcome)
                elif found:  # an error is raised by the next call: these are not lost
                    break
                self._done.popleft()
                self._keys.discard(outcome.key)
                if isinstance(outcome, ScorerError):
                    raise outcome
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

    def _hear(self, job: Job, outcome: Score | Failed) -> None:
        """What came of a try; of processes, in their dispatcher's thread."""
        if isinstance(outcome, Failed):
            job.tries += 1
            if job.tries <= self.retries:
                self.num_retries += 1
                self._submit(job)
                return
        with self._changed:
            self._done.append(self._judged(job, outcome))
            self._changed.notify_all()

    def _judged(self, job: Job, outcome: Score | Failed) -> Scored | ScorerError:
        if isinstance(outcome, Score):
            return Scored(
                job.key,
                outcome.value,
                job.seconds,
                parts=outcome.parts,
                steps=outcome.steps,
            )
        self.num_failures += 1
        tries = "" if job.tries == 1 else f", {job.tries} times"
        failure = f"{self.name}: scoring an answer to prompt {job.prompt.index} failed{tries}: {outcome.text}"
        if self.on_failure == "raise":
            error = ScorerError(
                f"{failure}; on_failure='zero' or 'drop' goes on without it",
                key=job.key,
            )
            if outcome.where:
                error.add_note(f"shoal: in the scorer:\n{outcome.where}")
            return error
        reward = 0.0 if self.on_failure == "zero" else None
        return Scored(job.key, reward, job.seconds, failure)

    def _submit(self, job: Job) -> None:
        if self._own is not None:
            self._own.waiting.append(job)
        elif self._elsewhere is not None:
            self._elsewhere.submit(job)

    def _break(self, error: Exception) -> None:
        """No scorer takes the place of one that was lost."""
        broken = ScorerError(f"{self.name}: {text_of(error)}")
        broken.__cause__ = error
        with self._changed:
            self._broken = broken
            self._changed.notify_all()


class _InProcess:
    """A scorer in this process."""

    def __init__(
        self, scorer: Scorer, heard: Callable[[Job, Score | Failed], None]
    ) -> None:
        self._scorer, self._heard = scorer, heard
        self._batch_size = batch_size_of(scorer)
        self.waiting: deque[Job] = deque()

    def work(self) -> None:
        """Scores all that waits, what is tried again included."""
        while self.waiting:
            jobs = [*islice(self.waiting, self._batch_size)]
            began = time.monotonic()
            outcomes = call(self._scorer, [(job.prompt, job.answer) for job in jobs])
            seconds = time.monotonic() - began
            for job, outcome in zip(jobs, outcomes, strict=True):
                self.waiting.popleft()  # not before: an interrupt loses none
                job.seconds += seconds
                self._heard(job, outcome)


def _packed(make_scorer: Callable[[], Scorer], name: str) -> bytes:
    try:
        return pack(make_scorer)
    except Exception as error:
        raise ConfigError(
            f"{name}: its scorer cannot go to other processes ({type(error).__name__}: {text_of(error)}); pass a "
            "function that makes it there, or score in this process (workers=0)"
        ) from error
