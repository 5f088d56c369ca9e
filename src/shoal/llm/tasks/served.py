"""An opponent behind a server that speaks OpenAI's protocol: it is told what a player is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from shoal.llm.chat_server import Chat, ChatServer
from shoal.llm.tasks.game import told_of, turns_of
from shoal.llm.tasks.task import Message
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.llm.tasks.game import Game, Move
    from shoal.llm.tasks.task import Prompt

AT_ONCE = 8
"""Requests under way at once, of each process that plays."""
TEMPERATURE = 0.7


class ServedOpponent:
    """Asks a server for each move."""

    at_once = AT_ONCE

    def __init__(self, server: ChatServer) -> None:
        """Nothing is asked yet."""
        self._chat = Chat(server)

    @classmethod
    def of_name(cls, name: str) -> Self:
        """From `http://HOST:PORT/v1#MODEL`.

        Raises:
            ConfigError: no model is named, or the address cannot be used; see `ChatServer`.
        """
        url, _, model = name.partition("#")
        if not model:
            raise ConfigError(
                f"opponent={name!r} names a server and no model; write {url}#MODEL, as the server calls it"
            )
        return cls(ChatServer(url, model, temperature=TEMPERATURE))

    def __call__(self, game: Game, prompt: Prompt, moves: tuple[Move, ...]) -> str:
        """The move of the player whose turn it is; ChatError where the server gives none."""
        player = game.position(prompt, moves).player
        told = told_of(game, prompt, player)
        chat = (Message("user", told),) if isinstance(told, str) else told
        return self._chat.ask(_merged((*chat, *turns_of(game, prompt, moves, player))))


def _merged(chat: tuple[Message, ...]) -> list[Message]:
    """The chat with messages of one role that follow each other as one: many servers want turns."""
    merged: list[Message] = []
    for message in chat:
        if merged and merged[-1].role == message.role:
            both = f"{merged[-1].content}\n\n{message.content}"
            merged[-1] = Message(message.role, both)
        else:
            merged.append(message)
    return merged
