"""Games of TextArena as conversations: the model plays one player, a function of yours the others."""

from __future__ import annotations

import importlib
import json
import random
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from shoal.llm.tasks.task import Message, Prompt, Reply
from shoal.types import ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

MAX_SEED = 2**31 - 1
MAX_STEPS = 10_000
"""Moves of other players in a row, at most."""


class TextArenaGame:
    """One game, begun anew with every prompt. Moves are played again for each reply: nothing is kept between them.

    What is scored is the whole game: the reward of the player, or `unfinished` where it did not come to its end.
    """

    def __init__(
        self,
        game: str,
        *,
        seed: int = 0,
        max_turns: int = 20,
        num_players: int = 1,
        opponent: Callable[[str], str] | None = None,
        unfinished: float = 0.0,
    ) -> None:
        """Begins the game once, to see whether it can be played.

        Args:
            game: as TextArena calls it, such as `GuessTheNumber-v0`.
            seed: of the first game; prompt i begins with seed + i.
            max_turns: moves of the model, at most.
            num_players: of the game; the model is player 0.
            opponent: plays all others: from what the player sees to its move. Equal views must get equal moves.
            unfinished: what an unfinished game earns.

        Raises:
            ConfigError: TextArena is missing, there is no such game, it is not for so many players, or it cannot begin.
        """
        if not 0 <= seed <= MAX_SEED:
            raise ConfigError(f"seed must be between 0 and {MAX_SEED}, got {seed}")
        if max_turns < 1:
            raise ConfigError(f"max_turns must be at least 1, got {max_turns}")
        if (num_players > 1) != (opponent is not None):
            raise ConfigError(
                f"{game}: a game of several players needs an opponent, one of a single player has none; got "
                f"num_players={num_players}, opponent={opponent!r}"
            )
        self.name, self.max_turns = f"textarena:{game}", max_turns
        self._game, self._seed, self._players = game, seed, num_players
        self._opponent, self._unfinished = opponent, unfinished
        check_game(self.name, game)
        try:
            self._play(0, ())
        except Exception as error:
            raise ConfigError(
                f"{self.name} with num_players={num_players} does not begin: {type(error).__name__}: {text_of(error)}"
            ) from error

    def prompt(self, index: int) -> Prompt:
        """A new game, as the model sees it first."""
        shown, _ = self._play(index, ())
        return Prompt(index, (Message("user", shown),))

    def reply(self, prompt: Prompt, turns: tuple[Message, ...]) -> Reply:
        """What the model sees after its move; done where the game is over."""
        shown, reward = self._play(prompt.index, _moves(turns))
        return Reply(Message("user", shown or "(nothing new)"), done=reward is not None)

    def answer_of(self, prompt: Prompt, turns: tuple[Message, ...]) -> str:
        """All moves of the model, as JSON: the game is scored as a whole."""
        return json.dumps(_moves(turns))

    def score(self, prompt: Prompt, answer: str) -> float:
        """What the game earned; `answer` is what `answer_of` gave, or a single move."""
        _, reward = self._play(prompt.index, _moves_of(answer))
        return self._unfinished if reward is None else reward

    def _play(self, index: int, moves: Sequence[str]) -> tuple[str, float | None]:
        """What the model sees after its moves, and its reward where the game is over."""
        seed = (self._seed + index) % 2**32
        with own_generators(seed):
            env = library().make(f"{self._game}-raw")
            env.reset(num_players=self._players, seed=seed)
            over = self._let_others(env)
            shown = "" if over else seen_by(env)
            for move in moves:
                if over:
                    break
                over = bool(env.step(move)[0]) or self._let_others(env)
                shown = "" if over else seen_by(env)
            if not over:
                return shown, None
            rewards = env.close()[0] or {}
        return shown, float(rewards.get(0, 0.0))

    def _let_others(self, env: Any) -> bool:
        """Has the other players move until it is the model's turn; whether the game is over."""
        for _ in range(MAX_STEPS):
            player = env.state.current_player_id
            if player == 0 or self._opponent is None:
                return False
            if env.step(self._opponent(seen_by(env)))[0]:
                return True
        raise RuntimeError(f"{self.name}: the other players moved {MAX_STEPS} times")


def _moves(turns: tuple[Message, ...]) -> list[str]:
    return [turn.content for turn in turns if turn.role == "assistant"]


def _moves_of(answer: str) -> list[str]:
    try:
        given: Any = json.loads(answer)
    except (ValueError, RecursionError):
        return [answer]
    if isinstance(given, list) and all(isinstance(move, str) for move in given):
        return given
    return [answer]


def seen_by(env: Any) -> str:
    """What the player whose turn it is has not seen yet, without its own moves."""
    player, seen = env.get_observation()
    return written(player, seen)


def written(player: int, seen: Sequence[tuple[int, str, object]]) -> str:
    """Observations of a player as text, without its own moves."""
    lines: list[str] = []
    for sender, text, _ in seen:
        if sender == player:
            continue
        who = "" if sender < 0 else f"[Player {sender}] "
        lines.append(f"{who}{text}")
    return "\n".join(lines).strip()


@contextmanager
def own_generators(seed: int) -> Generator[None]:
    """The process's own generators, which games draw from, begin with the seed, and are then as they were."""
    import numpy as np

    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


def library() -> Any:
    """TextArena, without what it warns of when it is imported; ConfigError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("textarena")
    except ImportError as error:
        raise ConfigError(
            f"games of TextArena need a package that is not installed here: {error}; pip install textarena"
        ) from error


def check_game(name: str, game: str) -> None:
    """ConfigError, with names that are near, unless there is such a game."""
    library()
    known: dict[str, Any] = importlib.import_module(
        "textarena.envs.registration"
    ).ENV_REGISTRY
    if f"{game}-raw" in known:
        return
    from shoal.envs.factories import near

    games = [one.removesuffix("-raw") for one in known if one.endswith("-raw")]
    raise ConfigError(
        f"{name}: TextArena has no such game{near(game, games) or f'; it has {len(games)}'}"
    )
