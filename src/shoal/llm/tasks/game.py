"""What a game of several players is: where it stands after its moves; and positions, read with care."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from shoal.llm.scorers.score import MOST
from shoal.llm.tasks.dialogue import MAX_REPLY
from shoal.llm.tasks.task import Message, Prompt, is_text
from shoal.types import RAISED, ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PLAYERS = 64
FORFEIT = -1.0
"""What a player earns that cannot go on, unless the game says it."""


@dataclass(frozen=True, slots=True)
class Move:
    """What a player said in its turn."""

    player: int
    text: str


@dataclass(frozen=True, slots=True)
class Position:
    """Where a game stands."""

    player: int = 0
    """Whose turn it is, counted from 0; of an ended game anybody."""
    shown: str = ""
    """What this player sees that it was not told and did not see in an earlier turn."""
    rewards: tuple[float, ...] | None = None
    """What each player has earned; None while the game goes on."""
    broke_rules: int | None = None
    """The player whose move was against the rules and ended the game."""


@runtime_checkable
class Game(Protocol):
    """A task whose episode is a game: several players move in turns, each sees its own side and has its own reward.

    Equal settings and moves give equal positions: a resumed run asks for them again. A game may also have

    - `unfinished`, what every player earns where the moves ran out (0), and `forfeit`, what one earns that has no room
      left for another turn or whose turn was cut (-1; the others earn `unfinished`),
    - `opponent(prompt, moves) -> str`, a move of a player of its own making,
    - `legal(prompt, moves) -> list[str]`, moves by the rules, from which the model `tiny` learns what a move is.
    """

    name: str
    num_players: int
    """At least 2."""
    max_turns: int
    """Moves of each player, at most."""

    def prompt(self, index: int) -> Prompt:
        """The start of this number, from 0 on; its question is what player 0 is told."""
        ...

    def told(self, prompt: Prompt, player: int) -> str | tuple[Message, ...]:
        """What a player is told before anybody moves: a text, or a chat that ends with a message of the role user."""
        ...

    def position(self, prompt: Prompt, moves: tuple[Move, ...]) -> Position:
        """Where the game stands after these moves of all players."""
        ...


class GameError(RuntimeError):
    """A game or an opponent did what none may; the message names the game, the start and the move."""


def is_game(task: object) -> bool:
    """Whether a task is a game of several players; ConfigError where it has a position and the rest does not fit."""
    if not callable(getattr(task, "position", None)):
        return False
    name = getattr(task, "name", type(task).__name__)
    players: object = getattr(task, "num_players", None)
    most: object = getattr(task, "max_turns", None)
    if not _whole(players, 2, MAX_PLAYERS) or not _whole(most, 1, 100_000):
        raise ConfigError(
            f"{name}: a game has num_players, from 2 to {MAX_PLAYERS}, and max_turns, at least 1; got "
            f"num_players={players!r}, max_turns={most!r}"
        )
    missing = [part for part in ("prompt", "told") if not hasattr(task, part)]
    if missing:
        raise ConfigError(f"{name}: a game also has {' and '.join(missing)}")
    if callable(getattr(task, "reply", None)):
        raise ConfigError(
            f"{name} has both reply (one model and a world) and position (several players); leave one of them out"
        )
    return True


def position_of(game: Game, prompt: Prompt, moves: tuple[Move, ...]) -> Position:
    """Where a game stands; one whose next player has had all its turns is over, with `unfinished` for everybody.

    Raises:
        GameError: the game raised, or gave what is no position.
    """
    where = f"{game.name}: move {len(moves)} of the game from start {prompt.index}"
    try:
        given = cast("object", game.position(prompt, moves))
    except RAISED as error:
        raise GameError(f"{where}: {type(error).__name__}: {text_of(error)}") from error
    if not isinstance(given, Position):
        raise GameError(
            f"{where}: position gave a {type(given).__name__}; return a Position"
        )
    broke = given.broke_rules
    if broke is not None and not _whole(broke, 0, game.num_players - 1):
        raise GameError(f"{where}: broke_rules is {broke!r}, which is no player")
    if given.rewards is not None:
        _check_rewards(game, given.rewards, where)
        return given
    if not _whole(given.player, 0, game.num_players - 1):
        raise GameError(
            f"{where}: it is the turn of player {given.player!r}, and there are {game.num_players}, from 0 on"
        )
    if not is_text(given.shown) or len(given.shown) > MAX_REPLY:
        raise GameError(
            f"{where}: what the player is shown must be a text of at most {MAX_REPLY:,} characters"
        )
    had = sum(move.player == given.player for move in moves)
    if had >= game.max_turns:
        return Position(given.player, rewards=unfinished(game))
    return given


def told_of(game: Game, prompt: Prompt, player: int) -> str | tuple[Message, ...]:
    """What a player is told before anybody moves.

    Raises:
        GameError: the game raised, or gave neither a text nor a chat.
    """
    where = f"{game.name}: told to player {player} of start {prompt.index}"
    try:
        given: Any = game.told(prompt, player)
    except RAISED as error:
        raise GameError(f"{where}: {type(error).__name__}: {text_of(error)}") from error
    if is_text(given):
        return given
    chat = isinstance(given, tuple) and all(isinstance(x, Message) for x in given)
    if not chat or not given or not all(is_text(one.content) for one in given):
        raise GameError(
            f"{where}: return a text, or a tuple of Message that ends with one of the role user"
        )
    return given


def unfinished(game: Game) -> tuple[float, ...]:
    """What each player earns in a game that did not come to its end."""
    return (float(getattr(game, "unfinished", 0.0)),) * game.num_players


def forfeited(game: Game, player: int) -> tuple[float, ...]:
    """What each player earns where this one cannot go on."""
    rewards = list(unfinished(game))
    rewards[player] = float(getattr(game, "forfeit", FORFEIT))
    return tuple(rewards)


def turns_of(
    game: Game, prompt: Prompt, moves: tuple[Move, ...], player: int
) -> tuple[Message, ...]:
    """A game as a conversation of one of its players, up to where it is its turn again.

    Raises:
        GameError: see `position_of`.
    """
    turns: list[Message] = []
    for number, move in enumerate(moves):
        if move.player == player:
            turns += _seen(position_of(game, prompt, moves[:number]))
            turns.append(Message("assistant", move.text))
    return (*turns, *_seen(position_of(game, prompt, moves)))


def _seen(position: Position) -> list[Message]:
    return [Message("user", position.shown)] if position.shown else []


def _check_rewards(game: Game, rewards: Sequence[object], where: str) -> None:
    """GameError unless there is a finite number for each player."""
    numbers: list[Any] = list(rewards)
    good = [isinstance(one, Real) and abs(float(one)) <= MOST for one in numbers]
    if len(numbers) != game.num_players or not all(good):
        raise GameError(
            f"{where}: rewards must be {game.num_players} finite numbers, one for each player, of at most {MOST:g}; "
            f"got {rewards!r}"
        )


def _whole(given: object, low: int, high: int) -> bool:
    return (
        isinstance(given, int) and not isinstance(given, bool) and low <= given <= high
    )
