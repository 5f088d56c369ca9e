"""A curriculum: the next level of a task is asked when answers to the one before earn enough."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from shoal.llm.tasks.levels import levels_of
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.llm.tasks.task import Task
    from shoal.stream.groups.flight import Group
    from shoal.stream.groups.settings import Curriculum


class Climb:
    """Which prompt is asked next, by what those of each level have earned."""

    def __init__(self, settings: Curriculum, levels: int) -> None:
        """Begins with the first prompt of the easiest level."""
        self._settings, self._levels = settings, levels
        self.level = 0
        """The hardest level that is asked."""
        self._asked = [0] * levels
        self._review = 0.0
        """Prompts of the levels below that are owed."""
        self._earned = [deque[float](maxlen=settings.window) for _ in range(levels)]

    def next_index(self) -> int:
        """The number of the prompt that is asked next: of the hardest level, or in between of one below."""
        level = self.level
        if level:
            self._review += self._settings.review
            if self._review >= 1:
                self._review -= 1
                level = min(range(level), key=self._need)
        number = self._asked[level]
        self._asked[level] += 1
        return number * self._levels + level

    def note(self, group: Group) -> None:
        """What a prompt's answers have earned, the mean; the next level is asked where that was enough."""
        rewards = [reward for _, reward in group.scored]
        if not rewards:
            return
        level = group.prompt.index % self._levels
        self._earned[level].append(sum(rewards) / len(rewards))
        top = self._earned[self.level]
        full = len(top) == self._settings.window
        if full and self.mean(self.level) >= self._settings.raise_at:
            self.level = min(self.level + 1, self._levels - 1)

    def earned(self, level: int) -> int:
        """Of how many prompts of a level it is known what they earned, up to `window`."""
        return len(self._earned[level])

    def mean(self, level: int) -> float:
        """What these have earned, the mean; 0 where there is none."""
        earned = self._earned[level]
        return sum(earned) / max(1, len(earned))

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {
            "level": self.level,
            "asked": list(self._asked),
            "review": self._review,
            "earned": [list(earned) for earned in self._earned],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues."""
        self.level, self._review = int(state["level"]), float(state["review"])
        self._asked = [int(count) for count in state["asked"]]
        for earned, saved in zip(self._earned, state["earned"], strict=True):
            earned.clear()
            earned.extend(float(reward) for reward in saved)

    def _need(self, level: int) -> tuple[float, int]:
        """The least reward first; of equal ones what was asked least."""
        return self.mean(level), self._asked[level]


def climb_of(settings: Curriculum, task: Task) -> Climb | None:
    """The curriculum of a task; None: its prompts in its own order.

    Raises:
        ConfigError: it has one level.
    """
    if settings.by == "task":
        return None
    levels = levels_of(task)
    if levels < 2:
        raise ConfigError(
            f'curriculum.by="success" goes from level to level, and {task.name} has one; give its levels as '
            "env_kwargs: levels = [{max_terms = 2}, {max_terms = 4}], or to a task of your own an attribute `levels` "
            "(prompt i is of level i % levels)"
        )
    return Climb(settings, levels)
