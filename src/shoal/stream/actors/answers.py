"""What an actor has said before anybody waited for it."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

SaidT = TypeVar("SaidT")


class Answers(Generic[SaidT]):
    """Of rollouts that were asked for, and of whatever is waited for."""

    def __init__(self) -> None:
        """Nothing was said."""
        self._rollouts: deque[int] = deque()
        """The tasks of rollouts that were asked for, the first one first."""
        self._said: dict[int, SaidT] = {}
        self.come = 0
        """Rollouts that have come since the actor began."""

    def expect(self, task: int) -> None:
        """A rollout was asked for."""
        self._rollouts.append(task)

    @property
    def first(self) -> int:
        """The task of the rollout that was asked for first."""
        return self._rollouts[0]

    def took_first(self) -> None:
        """It is not waited for any more."""
        self._rollouts.popleft()

    def put(self, task: int, said: SaidT, waited_for: int) -> None:
        """Keeps an answer, where it is to a rollout or to what is waited for."""
        if task in self._rollouts:
            self.come += 1
        elif task != waited_for:
            return
        self._said[task] = said

    def has(self, task: int) -> bool:
        """Whether an answer to it came."""
        return task in self._said

    def pop(self, task: int) -> SaidT:
        """The answer to it."""
        return self._said.pop(task)

    def early(self) -> list[SaidT]:
        """Answers to rollouts that nobody waited for, the oldest first."""
        return [self._said[task] for task in self._rollouts if task in self._said]
