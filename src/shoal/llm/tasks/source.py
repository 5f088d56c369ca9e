"""A task as the source of a run: where other runs have rows of environments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.llm.tasks.task import Task


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a run needs to know of its task."""

    env_id: str
    """The task's name."""
    reward_threshold: float | None = None
    """The mean reward at which it counts as solved."""
    agent_names: tuple[str, ...] = ()
    """Nobody but the model answers."""


class TaskSource:
    """A task, and how its answers are sampled where the model is evaluated."""

    native_pool = None
    """No rows are stepped in native code."""

    def __init__(self, task: Task, *, max_tokens: int, slots: int) -> None:
        """Made by an experiment.

        Args:
            task: gives prompts and judges answers.
            max_tokens: of an answer.
            slots: answers that are drawn at a time.
        """
        self.task, self.max_tokens, self.slots = task, max_tokens, slots
        self.spec = TaskSpec(task.name, getattr(task, "threshold", None))

    def close(self) -> None:
        """Closes the task, where it has anything to close."""
        close = getattr(self.task, "close", None)
        if close is not None:
            close()
