"""Games of TextArena between several players, any of whom a model may play."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal.llm.tasks.game import MAX_PLAYERS, Move, Position
from shoal.llm.tasks.task import Prompt
from shoal.llm.tasks.textarena import (
    MAX_SEED,
    check_game,
    library,
    own_generators,
    seen_by,
    written,
)
from shoal.types import ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALONE = threading.Lock()
"""Games draw from generators of the whole process: one at a time."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """A game after some moves."""

    told: tuple[str, ...]
    """What each player saw before anybody moved."""
    position: Position


class TextArenaMatch:
    """One game, begun anew from a seed with every start. Moves are played again each time: nothing is kept."""

    def __init__(
        self,
        game: str,
        *,
        num_players: int = 2,
        seed: int = 0,
        max_turns: int = 20,
        unfinished: float = 0.0,
        forfeit: float = -1.0,
    ) -> None:
        """Begins the game once, to see whether it can be played.

        Args:
            game: as TextArena calls it, such as `TicTacToe-v0`.
            num_players: of the game.
            seed: of the first game; start i begins with seed + i.
            max_turns: moves of each player, at most.
            unfinished: what each player earns where the moves ran out.
            forfeit: what a player earns that has no room left for another turn, or whose turn was cut.

        Raises:
            ConfigError: TextArena is missing, there is no such game, it is not for so many players, or it cannot begin.
        """
        self.name, self.num_players = f"textarena:{game}", num_players
        self.max_turns = max_turns
        _check("num_players", num_players, 2, MAX_PLAYERS)
        _check("seed", seed, 0, MAX_SEED)
        _check("max_turns", max_turns, 1, 100_000)
        self.unfinished, self.forfeit = unfinished, forfeit
        self._game, self._seed = game, seed
        check_game(self.name, game)
        try:
            self._play(0, ())
        except Exception as error:
            raise ConfigError(
                f"{self.name} with num_players={num_players} does not begin: {type(error).__name__}: {text_of(error)}"
            ) from error

    def prompt(self, index: int) -> Prompt:
        """A new game, as player 0 is told it."""
        return Prompt(index, self._play(index, ()).told[0])

    def told(self, prompt: Prompt, player: int) -> str:
        """What a player sees before anybody moves."""
        return self._play(prompt.index, ()).told[player]

    def position(self, prompt: Prompt, moves: tuple[Move, ...]) -> Position:
        """Whose turn it is, and what is new to it; or what the players have earned."""
        return self._play(prompt.index, moves).position

    def _play(self, index: int, moves: Sequence[Move]) -> _Standing:
        seed = (self._seed + index) % 2**32
        with _ALONE, own_generators(seed):
            env = library().make(f"{self._game}-raw")
            env.reset(num_players=self.num_players, seed=seed)
            told = tuple(_taken(env, player) for player in range(self.num_players))
            for move in moves:
                if move.player != env.state.current_player_id:
                    raise ValueError(
                        f"it was the turn of player {env.state.current_player_id}, and {move.player} moved"
                    )
                env.get_observation()
                if env.step(move.text)[0]:
                    return _Standing(told, self._ended(env))
            shown = seen_by(env)
            return _Standing(told, Position(env.state.current_player_id, shown))

    def _ended(self, env: Any) -> Position:
        rewards, info = env.close()
        earned: dict[int, float] = rewards or {}
        players = range(self.num_players)
        broke = [p for p in players if (info or {}).get(p, {}).get("invalid_move")]
        return Position(
            rewards=tuple(float(earned.get(p, self.unfinished)) for p in players),
            broke_rules=broke[0] if broke else None,
        )


def _taken(env: Any, player: int) -> str:
    """What waits for a player to see, which is taken away."""
    seen = env.state.observations[player]
    env.state.observations[player] = []
    return written(player, seen)


def _check(name: str, given: int, low: int, high: int) -> None:
    if not low <= given <= high:
        raise ConfigError(f"{name} must be between {low} and {high}, got {given}")
