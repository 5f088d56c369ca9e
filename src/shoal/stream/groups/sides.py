"""A game as one of its players has it, in tokens: what it was told, saw, and said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.llm.between import reply_tokens
from shoal.llm.opening import GAP, first_tokens, told_tokens
from shoal.llm.sampler.protocol import Drawn
from shoal.llm.tasks.game import told_of
from shoal.llm.tasks.task import Message, Prompt
from shoal.stream.groups.conversations import joined, outside
from shoal.stream.groups.flight import drawn_of, parts_of
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shoal.llm.model import LanguageModel
    from shoal.llm.tasks.game import Game


@dataclass(frozen=True, slots=True)
class Side:
    """What a player has of a game, once it had a turn."""

    seen: str
    """What it saw before its first turn, besides what it was told."""
    turns: tuple[Message, ...]
    """What it said, and saw in between."""
    said: Drawn
    """The tokens of all that."""

    def speak(self, drawn: Drawn, text: str) -> Side:
        """With another turn of its own."""
        turns = *self.turns, Message("assistant", text)
        return Side(self.seen, turns, joined(self.said, drawn))

    def cut(self) -> Side:
        """Without room for another turn."""
        return replace(self, said=replace(self.said, truncated=True))


class Hearing:
    """Turns what players are told and see into tokens."""

    def __init__(
        self, game: Game, model: LanguageModel, *, max_tokens: int, cuts: bool
    ) -> None:
        """Of a game, for a model; see `Games`."""
        self._game, self._tokenizer = game, model.tokenizer
        self._max_tokens, self._max_length = max_tokens, model.architecture.max_length
        self._kept_bytes = -(-model.architecture.vocab_size // 8) if cuts else 0

    def told(self, prompt: Prompt) -> list[tuple[int, ...]]:
        """What each player is told before anybody moves."""
        return [
            told_tokens(
                self._tokenizer,
                told_of(self._game, prompt, player),
                self._name(prompt, player),
            )
            for player in range(self._game.num_players)
        ]

    def first(
        self, prompt: Prompt, player: int, shown: str, empty: Drawn, told: int
    ) -> Side:
        """A player's side at its first turn.

        Args:
            prompt: the start.
            player: whose.
            shown: what it has seen since.
            empty: an answer of no tokens.
            told: tokens that it was told before.

        Raises:
            ConfigError: there is no room for a turn.
        """
        name, question = self._name(prompt, player), told_of(self._game, prompt, player)
        heard = first_tokens(self._tokenizer, question, shown, name)
        most = self._room(told)
        if len(heard) >= most:
            raise ConfigError(
                f"{name} reads {len(heard)} tokens before its first turn, and {most} are all that it may read and say; "
                "raise max_completion_length, or take a model with a longer context"
            )
        return Side(shown, (), joined(empty, outside(empty, heard)))

    def later(
        self, prompt: Prompt, player: int, shown: str, side: Side, told: int
    ) -> Side | None:
        """A player's side at a later turn; None where there is no room for one. See `first`."""
        turns = *side.turns, Message("user", shown)
        question = told_of(self._game, prompt, player)
        asked = Prompt(prompt.index, _with_seen(question, side.seen))
        last = int(side.said.token[-1])
        heard = reply_tokens(self._tokenizer, asked, turns, last)
        if len(side.said.token) + len(heard) >= self._room(told):
            return None
        return Side(side.seen, turns, joined(side.said, outside(side.said, heard)))

    def nothing(self, key: int, number: int) -> Drawn:
        """An answer of no tokens."""
        kept = np.zeros((0, self._kept_bytes), np.uint8) if self._kept_bytes else None
        return Drawn(
            key,
            number,
            np.zeros(0, np.int64),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
            truncated=False,
            kept=kept,
            learned=np.zeros(0, np.bool_),
        )

    def _room(self, told: int) -> int:
        """Tokens that a player may read and say behind what it was told."""
        return min(self._max_tokens, self._max_length - told)

    def _name(self, prompt: Prompt, player: int) -> str:
        return f"{self._game.name}: player {player} of start {prompt.index}"


def packed(player: int, side: Side) -> dict[str, Any]:
    """A side as a checkpoint holds it."""
    turns = [[turn.role, turn.content] for turn in side.turns]
    return {"player": player, "seen": side.seen, "turns": turns} | parts_of(side.said)


def unpacked(key: int, saved: Mapping[str, Any]) -> tuple[int, Side]:
    """What `packed` was given, in the group `key`."""
    turns: Iterable[tuple[str, str]] = saved["turns"]
    said = tuple(Message(role, content) for role, content in turns)
    return int(saved["player"]), Side(saved["seen"], said, drawn_of(key, saved))


def _with_seen(
    question: str | tuple[Message, ...], seen: str
) -> str | tuple[Message, ...]:
    """What a player was told, and what it saw before its first turn: what its model was asked first."""
    if not seen:
        return question
    if isinstance(question, str):
        return question.rstrip() + GAP + seen.strip()
    *before, last = question
    content = last.content.rstrip() + GAP + seen.strip()
    return (*before, replace(last, content=content))
