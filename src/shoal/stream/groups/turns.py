"""Tasks of several turns: conversations of one model with a world, or games of several players."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from shoal.llm.tasks.dialogue import is_dialogue
from shoal.llm.tasks.game import is_game
from shoal.llm.tasks.play import GamePool
from shoal.llm.tasks.replies import ReplyPool
from shoal.stream.groups.conversations import Conversations
from shoal.stream.groups.games import Games

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Drawn, Sampler
    from shoal.llm.tasks.game import Game
    from shoal.llm.tasks.task import Dialogue, Task
    from shoal.stream.groups.flight import Asked, Group
    from shoal.stream.groups.rival import Rival
    from shoal.stream.groups.settings import DrawsGroups


class Turns(Protocol):
    """Answers of several turns: conversations, or games of several players."""

    failed: int
    """Replies or moves that failed, and what they ended."""
    lost: int
    """Answers whose reward will never be known because of that."""

    @property
    def pending(self) -> int:
        """What is awaited, from others than the sampler."""
        ...

    def ask(self, index: int) -> Asked:
        """A prompt of the task by its number, and its tokens."""
        ...

    def learners(self, key: int) -> tuple[int, ...]:
        """The players that learn in a group."""
        ...

    def begin(self, groups: Sequence[Group], count: int) -> None:
        """Begins so many answers of each of these new groups."""
        ...

    def take(self, group: Group, drawn: Drawn) -> bool:
        """Takes in a turn that the sampler has finished; whether the whole answer is finished with it."""
        ...

    def poll(
        self, groups: Mapping[int, Group], block_s: float = 0.0
    ) -> list[tuple[Group, int]]:
        """Has the model go on where it can; the answers, by group and number, that are finished instead."""
        ...

    def follow(self) -> None:
        """Called after each published version."""
        ...

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        ...

    def restore(self, state: Mapping[str, Any], groups: Mapping[int, Group]) -> None:
        """Continues."""
        ...

    def close(self) -> None:
        """Ends what it has started."""
        ...


def turns_of(
    task: Task,
    model: LanguageModel,
    sampler: Sampler,
    cfg: DrawsGroups,
    *,
    pool: ReplyPool | GamePool | None = None,
    rival: Rival | None = None,
) -> Turns | None:
    """How turns of a task follow each other; None for a task of one turn.

    Args:
        task: a conversation or a game.
        model: its tokenizer, and the most that it reads.
        sampler: draws turns.
        cfg: the most tokens of an answer, and how they are drawn.
        pool: has the task reply, or a game go on; None: this process does.
        rival: draws the turns of a game's players that do not learn; None: no model does.
    """
    most = cfg.max_completion_length
    if is_game(task):
        game = cast("Game", task)
        games = pool if isinstance(pool, GamePool) else None
        games = games or GamePool(lambda: game, name=task.name)
        return Games(
            game,
            model,
            sampler,
            games,
            max_tokens=most,
            cuts=cfg.sampling.drawing(1).cuts,
            one_learns=rival is not None or games.has_opponent,
            rival=rival,
        )
    if not is_dialogue(task):
        return None
    dialogue = cast("Dialogue", task)
    replies = pool if isinstance(pool, ReplyPool) else None
    replies = replies or ReplyPool(lambda: dialogue, name=task.name)
    return Conversations(dialogue, model, sampler, replies, max_tokens=most)
