"""Prompts made ahead in processes, for tasks that take long to come to one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

from shoal.llm.stage.stage import Settings, Stage
from shoal.llm.stage.work import Failed, failed
from shoal.types import RAISED, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.llm.tasks.task import Prompt, Task

WAIT_S = 1.0


class PromptsAhead:
    """A task whose prompts are there when they are asked for. They are the same prompts: those of their numbers."""

    def __init__(
        self,
        make_task: Callable[[], Task],
        *,
        workers: int = 1,
        ahead: int = 64,
        timeout_s: float = 60.0,
    ) -> None:
        """Makes the task here, for its scores, and in every process.

        Args:
            make_task: makes it, with the same settings each time.
            workers: processes, at least 1.
            ahead: prompts that are made after the one that was asked for last.
            timeout_s: seconds that a prompt may take.

        Raises:
            ConfigError: a setting cannot work, or `make_task` cannot go to other processes.
        """
        if workers < 1 or ahead < 1:
            raise ConfigError(
                f"workers and ahead must be at least 1, got {workers} and {ahead}"
            )
        self._task = make_task()
        self.name, self._ahead = self._task.name, ahead
        self._there: dict[int, Prompt | Failed] = {}
        self._asked: set[int] = set()
        self._stage: Stage[int, Prompt] = Stage(
            partial(_Generating, make_task),
            Settings(workers, timeout_s, retries=1),
            name=self.name,
            word="generator",
        )

    def __getattr__(self, name: str) -> Any:
        """What else the task has: `solution`, `threshold`, `reply`."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._task, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[Task], Task], tuple[Task]]:
        """In another process, which scores or replies, it is the task alone."""
        return _same, (self._task,)

    def ready(self, index: int) -> bool:
        """Whether a prompt can be had without waiting; it and those after it are begun."""
        self._begin(index)
        self._take(0.0)
        return index in self._there

    def prompt(self, index: int) -> Prompt:
        """The prompt of this number, from 0 on; those after it are begun.

        Raises:
            RuntimeError: the task raised, hung, or ended its process, twice.
        """
        if index < 0:
            raise ValueError(
                f"{self.name}: prompts are counted from 0, asked for {index}"
            )
        self._begin(index)
        self._take(0.0)
        while index not in self._there:
            self._take(WAIT_S)
        found = self._there[index]
        self._forget(index)
        if isinstance(found, Failed):
            del self._there[index]
            raise RuntimeError(
                f"{self.name}: making prompt {index} failed: {found.text}"
            )
        return found

    def score(self, prompt: Prompt, answer: str) -> float:
        """As the task scores."""
        return self._task.score(prompt, answer)

    def close(self) -> None:
        """Ends the processes, and closes the task where it has anything to close."""
        self._stage.close()
        close = getattr(self._task, "close", None)
        if close is not None:
            close()

    def _begin(self, index: int) -> None:
        for wanted in range(index, index + self._ahead + 1):
            if wanted not in self._there and wanted not in self._asked:
                self._stage.submit(wanted, wanted)
                self._asked.add(wanted)

    def _take(self, block_s: float) -> None:
        for done in self._stage.poll(block_s):
            self._there[done.key] = done.outcome
            self._asked.discard(done.key)

    def _forget(self, index: int) -> None:
        """Keeps those around the one that was asked for: groups and evaluation come back to some."""
        if len(self._there) > 4 * self._ahead:
            near = range(index - self._ahead, index + self._ahead + 1)
            self._there = {key: one for key, one in self._there.items() if key in near}


def _same(task: Task) -> Task:
    return task


class _Generating:
    """The work: numbers become prompts."""

    batch_size = 1

    def __init__(self, make_task: Callable[[], Task]) -> None:
        self._task = make_task()

    def work(self, pieces: Sequence[int]) -> list[Prompt | Failed]:
        return [self._made(index) for index in pieces]

    def _made(self, index: int) -> Prompt | Failed:
        try:
            return self._task.prompt(index)
        except RAISED as error:
            return failed(error)
