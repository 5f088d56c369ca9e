"""Games as a stage of their own: moves go in, where the game stands comes out, opponents' moves made on the way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, Self, cast

from shoal.llm.stage.stage import Settings, Stage
from shoal.llm.stage.work import Failed, failed
from shoal.llm.tasks.dialogue import MAX_REPLY
from shoal.llm.tasks.game import GameError, Move, Position, position_of
from shoal.llm.tasks.task import is_text
from shoal.types import RAISED, ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.llm.tasks.game import Game
    from shoal.llm.tasks.task import Prompt

POLICIES = ("raise", "end")


class Opponent(Protocol):
    """Makes the moves of the players that no model of this run plays."""

    def __call__(self, game: Game, prompt: Prompt, moves: tuple[Move, ...]) -> str:
        """The move of the player whose turn it is."""
        ...


@dataclass(frozen=True, slots=True)
class Played:
    """Where a game stands when a model is to move, or when it is over."""

    key: int
    """As it was submitted."""
    moves: tuple[Move, ...]
    """All so far, opponents' included."""
    position: Position | None
    """None where the game or an opponent failed: the game is called off."""
    failure: str | None = None
    """Why, then."""


class GamePool:
    """Has games go on, in processes or in this one. Every key that is submitted comes back exactly once."""

    def __init__(
        self,
        make_game: Callable[[], Game],
        *,
        name: str,
        make_opponent: Callable[[], Opponent] | None = None,
        workers: int = 0,
        timeout_s: float = 60.0,
        retries: int = 1,
        on_failure: Literal["raise", "end"] = "end",
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Makes the game, in every process.

        Args:
            make_game: makes it.
            name: of the game, in messages.
            make_opponent: makes who plays the players that no model plays; None: models play all.
            workers: processes; 0 plays in this one, inside `poll`, where nothing can end a call that hangs.
            timeout_s: seconds that a move may take, opponents' answers to it included; its process is killed then, and
                another one started.
            retries: how often a move is tried again where game or opponent raised, hung or ended its process.
            on_failure: then: `end` calls the game off; `raise` a GameError in `poll`.
            tell: told of the first game that is called off.

        Raises:
            ConfigError: a setting cannot work, or the game cannot go to other processes.
        """
        if on_failure not in POLICIES:
            raise ConfigError(
                f"on_failure is one of {', '.join(POLICIES)}, got {on_failure!r}"
            )
        self.name, self.on_failure, self._tell = name, on_failure, tell
        self.has_opponent = make_opponent is not None
        """Whether some players are played without a model."""
        self.num_failures = 0
        """Games that could not go on."""
        self._failed: list[GameError] = []
        self._asked: dict[int, tuple[int, tuple[Move, ...]]] = {}
        """The start and the moves of pending games, by key."""
        self._stage: Stage[_Piece, _Standing] = Stage(
            partial(_Playing, make_game, make_opponent),
            Settings(workers, timeout_s, retries),
            name=name,
            word="game",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pending(self) -> int:
        """Games that were submitted and did not come back yet."""
        return self._stage.pending

    def submit(
        self,
        key: int,
        prompt: Prompt,
        moves: tuple[Move, ...],
        models: frozenset[int],
    ) -> None:
        """Has a game go on until one of the players `models` is to move; `key` comes back then."""
        self._stage.submit(key, _Piece(prompt, moves, models))
        self._asked[key] = prompt.index, moves

    def poll(self, block_s: float = 0.0) -> list[Played]:
        """Games that wait for a model, or have ended.

        Args:
            block_s: how long to wait for the first one where there is none.

        Raises:
            GameError: with on_failure="raise", a game or an opponent failed; other games are not lost.
            StageError: a process was lost, and none takes its place.
        """
        if self._failed:
            raise self._failed.pop(0)
        found: list[Played] = []
        for done in self._stage.poll(block_s):
            start, moves = self._asked.pop(done.key)
            outcome = done.outcome
            if not isinstance(outcome, Failed):
                found.append(Played(done.key, outcome.moves, outcome.position))
                continue
            self.num_failures += 1
            times = "" if done.tries == 1 else f", {done.tries} times"
            text = f"{self.name}: the game from start {start} failed after {len(moves)} moves{times}: {outcome.text}"
            if self.on_failure == "raise":
                self._failed.append(GameError(text))
                continue
            found.append(Played(done.key, moves, None, text))
            if self._tell is not None and self.num_failures == 1:
                self._tell(f"{text}; it is called off, and nothing is learned from it")
        if self._failed and not found:
            raise self._failed.pop(0)
        return found

    def close(self) -> None:
        """Ends the processes."""
        self._stage.close()
        self._asked.clear()


def play_on(
    game: Game,
    prompt: Prompt,
    moves: tuple[Move, ...],
    models: frozenset[int],
    opponent: Opponent | None,
) -> tuple[tuple[Move, ...], Position]:
    """Has opponents move until one of the players `models` is to, or the game is over; all moves, and where it stands.

    Raises:
        GameError: the game or the opponent failed.
    """
    while True:
        position = position_of(game, prompt, moves)
        if position.rewards is not None or position.player in models:
            return moves, position
        if opponent is None:
            raise GameError(f"{game.name}: nobody plays player {position.player}")
        text = _asked(opponent, game, prompt, moves, position.player)
        moves = *moves, Move(position.player, text)


def _asked(
    opponent: Opponent,
    game: Game,
    prompt: Prompt,
    moves: tuple[Move, ...],
    player: int,
) -> str:
    where = f"{game.name}: the opponent that plays player {player}"
    try:
        text = cast("object", opponent(game, prompt, moves))
    except RAISED as error:
        raise GameError(
            f"{where} failed: {type(error).__name__}: {text_of(error)}"
        ) from error
    if not isinstance(text, str) or not is_text(text):
        what = (
            "half a character" if isinstance(text, str) else f"a {type(text).__name__}"
        )
        raise GameError(f"{where} gave {what}; return the text of its move")
    if len(text) > MAX_REPLY:
        raise GameError(
            f"{where} gave {len(text):,} characters, at most {MAX_REPLY:,} are read"
        )
    return text


@dataclass(frozen=True, slots=True)
class _Piece:
    """A game that is to go on."""

    prompt: Prompt
    moves: tuple[Move, ...]
    models: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where it stands then."""

    moves: tuple[Move, ...]
    position: Position


class _Playing:
    """The work: games go on."""

    def __init__(
        self,
        make_game: Callable[[], Game],
        make_opponent: Callable[[], Opponent] | None,
    ) -> None:
        self._game = make_game()
        self._opponent = None if make_opponent is None else make_opponent()
        self.batch_size = int(getattr(self._opponent, "at_once", 1))

    def work(self, pieces: Sequence[_Piece]) -> list[_Standing | Failed]:
        if len(pieces) == 1:
            return [self._played(pieces[0])]
        with ThreadPoolExecutor(len(pieces)) as threads:
            return list(threads.map(self._played, pieces))

    def _played(self, piece: _Piece) -> _Standing | Failed:
        try:
            moves, position = play_on(
                self._game, piece.prompt, piece.moves, piece.models, self._opponent
            )
        except RAISED as error:
            return failed(error)
        return _Standing(moves, position)
