"""Scoring as a stage of its own: answers go in, scores come out when they are there, and none is lost."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

from shoal.llm.scorers.score import Score, ScorerError, Scoring
from shoal.llm.stage.stage import Settings, Stage
from shoal.llm.stage.work import Failed
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.llm.scorers.score import Scorer
    from shoal.llm.stage.stage import Done
    from shoal.llm.tasks.task import Prompt

OnFailure = Literal["raise", "zero", "drop"]
POLICIES = ("raise", "zero", "drop")


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
        tell: Callable[[str], None] | None = None,
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
            tell: told of the first answer that gets no score, where that is no error.

        Raises:
            ConfigError: a setting cannot work, or the scorer cannot go to other processes.
            Exception: what making the scorer raised.
            EnvError: a process died while it did, or took too long.
        """
        if on_failure not in POLICIES:
            raise ConfigError(
                f"on_failure is one of {', '.join(POLICIES)}, got {on_failure!r}"
            )
        self.name, self.on_failure, self._tell = name, on_failure, tell
        self.num_failures = 0
        """Answers without a score so far, retries exhausted."""
        self._asked: dict[int, int] = {}
        """The prompts of pending answers, by key."""
        self._judged: deque[Scored | ScorerError] = deque()
        settings = Settings(workers, timeout_s, retries, start_timeout_s)
        self._stage: Stage[tuple[Prompt, str], Score] = Stage(
            partial(_scoring, make_scorer), settings, name=name, word="scorer"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pending(self) -> int:
        """Answers that were submitted and did not come back yet."""
        return len(self._asked)

    @property
    def num_retries(self) -> int:
        """Tries that failed and were made again."""
        return self._stage.num_retries

    @property
    def pids(self) -> list[int]:
        """Of the processes that score."""
        return self._stage.pids

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
        if key in self._asked:
            raise ValueError(f"{self.name}: key {key} is pending; keys must be unlike")
        self._stage.submit(key, (prompt, answer))
        self._asked[key] = prompt.index

    def poll(self, block_s: float = 0.0) -> list[Scored]:
        """Those answers that are scored by now, in the order in which they were.

        Args:
            block_s: how long to wait for the first one where there is none; without processes all that is pending is
                scored at once.

        Raises:
            ScorerError: with on_failure="raise", an answer could not be scored; what else is pending stays so.
            StageError: a process was lost, and no scorer can be made in its place.
        """
        if not self._judged:
            self._judged += map(self._judge, self._stage.poll(block_s))
        found: list[Scored] = []
        while self._judged:
            outcome = self._judged[0]
            if isinstance(outcome, Scored):
                found.append(outcome)
            elif found:  # an error is raised by the next call: these are not lost
                break
            self._judged.popleft()
            del self._asked[outcome.key]
            if isinstance(outcome, ScorerError):
                raise outcome
        return found

    def close(self) -> None:
        """Ends all processes, some seconds later at most; what is pending is forgotten."""
        self._stage.close()
        self._asked.clear()
        self._judged.clear()

    def _judge(self, done: Done[Score]) -> Scored | ScorerError:
        outcome = done.outcome
        if isinstance(outcome, Score):
            return Scored(
                done.key,
                outcome.value,
                done.seconds,
                parts=outcome.parts,
                steps=outcome.steps,
            )
        self.num_failures += 1
        failure = self._words(done, outcome)
        if self.on_failure == "raise":
            error = ScorerError(
                f"{failure}; language.on_scorer_failure='drop' or 'zero' goes on without it, in a resumed run too",
                done.key,
            )
            if outcome.where:
                error.add_note(f"shoal: in the scorer:\n{outcome.where}")
            return error
        reward = 0.0 if self.on_failure == "zero" else None
        if self._tell is not None and self.num_failures == 1:
            follows = "left out" if reward is None else "worth 0"
            self._tell(f"{failure}; such answers are {follows}")
        return Scored(done.key, reward, done.seconds, failure)

    def _words(self, done: Done[Score], why: Failed) -> str:
        tries = "" if done.tries == 1 else f", {done.tries} times"
        prompt = self._asked[done.key]
        return f"{self.name}: scoring an answer to prompt {prompt} failed{tries}: {why.text}"


def _scoring(make_scorer: Callable[[], Scorer]) -> Scoring:
    return Scoring(make_scorer())
