"""A task as the source of a run: where other runs have rows of environments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from shoal.llm.settings import Language
from shoal.llm.tasks.dialogue import is_dialogue
from shoal.llm.tasks.game import is_game
from shoal.llm.tasks.opponents import make_opponent
from shoal.llm.tasks.play import GamePool
from shoal.llm.tasks.replies import ReplyPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.llm.tasks.game import Game
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
    num_players: int = 1
    """Of a game of several players."""
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
        game = is_game(task)
        self.spec = TaskSpec(
            task.name,
            getattr(task, "threshold", None),
            replies=game or is_dialogue(task),
            num_players=cast("Game", task).num_players if game else 1,
        )

    def reply_pool(self, tell: Callable[[str], None] | None = None) -> ReplyPool | None:
        """Has the task reply, as the settings say; None for one of one turn. `tell`: told of the first failure."""
        if not self.spec.replies or self.spec.num_players > 1:
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

    def game_pool(
        self, opponent: str = "", tell: Callable[[str], None] | None = None
    ) -> GamePool | None:
        """Has a game go on, as the settings say; None for a task that is none.

        Args:
            opponent: who plays the players that no model plays, as in `make_opponent`; empty: models play all.
            tell: told of the first game that is called off.

        Raises:
            ConfigError: there is no such opponent.
        """
        if self.spec.num_players == 1:
            return None
        language = self.language
        make = partial(make_opponent, opponent, cast("Game", self.task))
        return GamePool(
            partial(_game, self.task),
            name=self.task.name,
            make_opponent=make if opponent else None,
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


def _game(task: Task) -> Game:
    """The task, in whatever process."""
    return cast("Game", task)


def _dialogue(task: Task) -> Dialogue:
    """The task, in whatever process."""
    return cast("Dialogue", task)
