"""Opponents that are no models of the run: the game's own, a function, a server that speaks OpenAI's protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from shoal.llm.tasks.game import told_of, turns_of
from shoal.llm.tasks.task import Prompt
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.llm.tasks.game import Game, Move
    from shoal.llm.tasks.play import Opponent
    from shoal.llm.tasks.task import Message

    Speak = Callable[[Prompt, tuple[Message, ...]], str]

OWN = "task"
"""What the game's own opponent is called."""
SERVERS = ("http://", "https://")


def is_scripted(name: str) -> bool:
    """Whether an opponent moves by itself, without a model of the run."""
    return name == OWN or name.startswith(SERVERS) or _is_dotted(name)


def evaluating(opponent: str, eval_opponent: str, game: Game) -> str:
    """Against whom a model is evaluated; empty: itself. See `Language.eval_opponent`.

    Raises:
        ConfigError: against whom it cannot be.
    """
    name = eval_opponent
    if name == "auto":
        own = OWN if callable(getattr(game, "opponent", None)) else "self"
        name = opponent if is_scripted(opponent) else own
    if name == "self":
        return ""
    if not is_scripted(name):
        raise ConfigError(
            f"language.eval_opponent={name!r}: evaluation is against self, {OWN}, package.module:function or "
            "http://HOST:PORT/v1#MODEL, so that its numbers can be compared from one evaluation to the next"
        )
    return name


def make_opponent(name: str, game: Game) -> Opponent:
    """An opponent by its name.

    Args:
        name: `task`, the game's own; `package.module:function`, which is given what a player was told and the turns
            since, and returns its move; or `http://HOST:PORT/v1#MODEL`, a server.
        game: the task.

    Raises:
        ConfigError: there is no such opponent.
    """
    if name == OWN:
        if not callable(getattr(game, "opponent", None)):
            raise ConfigError(
                f"opponent={name!r}: {game.name} has none of its own, opponent(prompt, moves) -> str; name another one"
            )
        return own_move
    if name.startswith(SERVERS):
        from shoal.llm.tasks.served import ServedOpponent

        return ServedOpponent.of_name(name)
    from shoal.envs.factories import import_object

    speak = import_object(name)
    if not callable(speak):
        raise ConfigError(
            f"opponent={name!r} is a {type(speak).__name__}; name a function of (prompt, turns) that returns a move"
        )
    return Speaker(cast("Speak", speak))


def own_move(game: Game, prompt: Prompt, moves: tuple[Move, ...]) -> str:
    """What the game's own opponent does."""
    move: Callable[[Prompt, tuple[Move, ...]], str] = game.opponent  # pyright: ignore[reportAttributeAccessIssue]
    return move(prompt, moves)


class Speaker:
    """An opponent that is spoken to as a model is: what it was told, and the turns since."""

    def __init__(self, speak: Speak) -> None:
        """`speak` returns the next turn."""
        self._speak = speak

    def __call__(self, game: Game, prompt: Prompt, moves: tuple[Move, ...]) -> str:
        """The move of the player whose turn it is."""
        player = game.position(prompt, moves).player
        told = told_of(game, prompt, player)
        asked = replace(prompt, question=told)
        return self._speak(asked, turns_of(game, prompt, moves, player))


def _is_dotted(name: str) -> bool:
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)
