"""A task in levels of difficulty: several tasks of one kind, asked in turns or as a curriculum says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.llm.tasks.task import Prompt, Task

OF_A_PROMPT = ("solution", "reply", "answer_of")
"""What a task may be asked of one of its prompts, besides its score."""


def levels_of(task: Task) -> int:
    """Levels that a task has: prompt i is of level i % levels, the easiest being 0; 1 where it says nothing of them."""
    return int(getattr(task, "levels", 1))


class LeveledTask:
    """Several tasks as one: prompt i is prompt i // n of task i % n."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        """`tasks` come from the easiest to the hardest; all have turns, or none."""
        self._tasks = list(tasks)
        self.levels = len(self._tasks)
        self.name = self._tasks[0].name

    def __getattr__(self, name: str) -> Any:
        """What else the tasks have: `threshold`, and of a prompt `solution`, `reply`, `answer_of`."""
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._tasks[0], name)
        return partial(self._ask, name) if name in OF_A_PROMPT else found

    def prompt(self, index: int) -> Prompt:
        """The prompt of this number, from 0 on."""
        if index < 0:
            raise ValueError(
                f"{self.name}: prompts are counted from 0, asked for {index}"
            )
        number, level = divmod(index, self.levels)
        return replace(self._tasks[level].prompt(number), index=index)

    def score(self, prompt: Prompt, answer: str) -> float:
        """As the prompt's own task scores."""
        return self._ask("score", prompt, answer)

    def close(self) -> None:
        """Closes the tasks that have anything to close."""
        for task in self._tasks:
            close = getattr(task, "close", None)
            if close is not None:
                close()

    def _ask(self, what: str, prompt: Prompt, *given: Any) -> Any:
        number, level = divmod(prompt.index, self.levels)
        ask = getattr(self._tasks[level], what)
        return ask(replace(prompt, index=number), *given)


def checked_levels(given: object, name: str) -> list[dict[str, Any]]:
    """The keywords of each level; ConfigError unless they are at least two tables."""
    says = (
        f"{name}: levels is a list of tables of keywords, from the easiest to the hardest, such as "
        "[{max_terms = 2}, {max_terms = 4}]"
    )
    if not isinstance(given, list | tuple) or len(given) < 2:
        raise ConfigError(f"{says}; got {given!r}")
    for number, level in enumerate(given):
        if not isinstance(level, Mapping) or not level:
            raise ConfigError(f"{says}; number {number} is {level!r}")
    return [dict(level) for level in given]
