"""A task as the source of a run: where other runs have rows of environments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from shoal.llm.settings import Language
from shoal.llm.tasks.dialogue import is_dialogue
from shoal.llm.tasks.replies import ReplyPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.llm.tasks.task import Dialogue, Task


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a run needs to know of its task."""

    env_id: str
    """The task's name."""
    reward_threshold: float | None = None
    """The mean reward at which it counts as solved."""
    agent_names: tuple[str, ...] = ()
    """Nobody but the model answers."""
    replies: bool = False
    """Whether it has several turns, between which it replies."""
    guarded: bool = False
    """Answers are no actions of an environment, which alone have an action guard."""


class TaskSource:
    """A task, and how its answers are sampled where the model is evaluated."""

    native_pool = None
    """No rows are stepped in native code."""

    def __init__(
        self, task: Task, *, max_tokens: int, language: Language | None = None
    ) -> None:
        """Made by an experiment.

        Args:
            task: gives prompts, judges answers, and replies where it has several turns.
            max_tokens: of an answer.
            language: how many are drawn at a time, and how replies come to be.

        Raises:
            ConfigError: it has half of what a task of several turns has.
        """
        self.task, self.max_tokens = task, max_tokens
        self.language = language or Language()
        self.spec = TaskSpec(
            task.name, getattr(task, "threshold", None), replies=is_dialogue(task)
        )

    def reply_pool(self, tell: Callable[[str], None] | None = None) -> ReplyPool | None:
        """Has the task reply, as the settings say; None for one of one turn. `tell`: told of the first failure."""
        if not self.spec.replies:
            return None
        language = self.language
        return ReplyPool(
            partial(_dialogue, self.task),
            name=self.task.name,
            workers=language.reply_workers,
            timeout_s=language.reply_timeout_s,
            retries=language.reply_retries,
            on_failure=language.on_reply_failure,
            tell=tell,
        )

    def close(self) -> None:
        """Closes the task, where it has anything to close."""
        close = getattr(self.task, "close", None)
        if close is not None:
            close()


def _dialogue(task: Task) -> Dialogue:
    """The task, in whatever process."""
    return cast("Dialogue", task)
