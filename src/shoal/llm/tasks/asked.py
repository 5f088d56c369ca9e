"""A task is asked in this process: what it raises is told whose it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from shoal.types import RAISED, refuse_leaving

if TYPE_CHECKING:
    from shoal.llm.tasks.task import Prompt, Task


class Prompts(Protocol):
    """What has prompts by their number: a task, a dialogue, a game."""

    @property
    def name(self) -> str:
        """In messages."""
        ...

    def prompt(self, index: int) -> Prompt:
        """The prompt of a number."""
        ...


def prompt_of(task: Prompts, index: int) -> Prompt:
    """The prompt of a number; ConfigError where asking for it raised StopIteration or SystemExit."""
    try:
        return task.prompt(index)
    except RAISED as error:
        where = f"{task.name}: prompt({index})"
        refuse_leaving(error, where, "begin again after the last one: prompt(i % n)")
        error.add_note(f"shoal: raised by {where}")
        raise


def score_of(task: Task, prompt: Prompt, answer: str) -> Any:
    """What a task says of an answer; ConfigError where it raised StopIteration or SystemExit."""
    try:
        return task.score(prompt, answer)
    except RAISED as error:
        where = f"{task.name}: the score of an answer to prompt {prompt.index}"
        refuse_leaving(error, where)
        error.add_note(f"shoal: raised by {where}")
        raise
