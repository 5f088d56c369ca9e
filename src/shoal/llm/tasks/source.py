"""A task as the source of a run: where other runs have rows of environments."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from shoal.llm.scorers.pool import ScorerPool
from shoal.llm.settings import Language
from shoal.llm.tasks.dialogue import is_dialogue
from shoal.llm.tasks.game import is_game
from shoal.llm.tasks.opponents import make_opponent
from shoal.llm.tasks.play import GamePool
from shoal.llm.tasks.replies import ReplyPool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from shoal.llm.scorers.score import Scorer
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
        self,
        task: Task,
        *,
        max_tokens: int,
        language: Language | None = None,
        stop: tuple[str, ...] = (),
    ) -> None:
        """Made by an experiment.

        Args:
            task: gives prompts, judges answers, and replies where it has several turns.
            max_tokens: of an answer.
            language: how many are drawn at a time, and how replies come to be.
            stop: texts that end one.

        Raises:
            ConfigError: it has half of what a task of several turns has.
        """
        self.task, self.max_tokens, self.stop = task, max_tokens, stop
        self.language = language or Language()
        self._judges: ScorerPool | None = None
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

    def scorer_pool(self, tell: Callable[[str], None] | None = None) -> ScorerPool:
        """Has answers judged, as the settings say; of a game, which says itself what its players have earned, none.

        Args:
            tell: told of the first answer that gets no score, where that does not end the run.
        """
        language = self.language
        return ScorerPool(
            partial(_judge_of, None if self.spec.num_players > 1 else self.task),
            name=self.spec.env_id,
            workers=language.scorer_workers,
            timeout_s=language.scorer_timeout_s,
            retries=language.scorer_retries,
            on_failure=language.on_scorer_failure,
            tell=tell,
        )

    @contextmanager
    def judges(self) -> Generator[ScorerPool]:
        """A `scorer_pool` whose processes wait for the next evaluation; after an error they begin anew."""
        if self._judges is None:
            self._judges = self.scorer_pool()
        try:
            yield self._judges
        except BaseException:
            self._end_judges()
            raise

    def close(self) -> None:
        """Ends what judges, and closes the task, where it has anything to close."""
        self._end_judges()
        close = getattr(self.task, "close", None)
        if close is not None:
            close()

    def _end_judges(self) -> None:
        if self._judges is not None:
            self._judges.close()
        self._judges = None


def _judge_of(task: Task | None) -> Scorer:
    """What judges a task's answers, in whatever process; None: a game, which says itself what players have earned."""
    if task is None:
        return _never
    return getattr(task, "scorer", None) or task.score


def _never(prompt: object, answer: str) -> float:
    raise RuntimeError(f"a game was to be scored: {prompt!r}, {answer!r}")


def _game(task: Task) -> Game:
    """The task, in whatever process."""
    return cast("Game", task)


def _dialogue(task: Task) -> Dialogue:
    """The task, in whatever process."""
    return cast("Dialogue", task)
