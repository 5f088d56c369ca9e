"""Nim, a game for two that is small enough for a tiny model: take stones from one heap; who takes the last one wins."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from shoal.llm.tasks.game import Move, Position
from shoal.llm.tasks.task import Prompt
from shoal.types import ConfigError, check_ranges

if TYPE_CHECKING:
    from shoal.llm.tasks.task import Message

LETTERS = "AB"


class Nim:
    """A heap of stones, of which each player in turn takes 1 to `most`. The last stone wins; a wrong move loses.

    Whoever leaves a multiple of most + 1 to the other wins, so that from most starts one of the players wins for sure.
    """

    num_players = 2

    def __init__(
        self,
        *,
        seed: int = 0,
        most: int = 3,
        low: int = 4,
        high: int = 12,
        skill: float = 1.0,
    ) -> None:
        """Heaps of `low` to `high` stones.

        Args:
            seed: of the heaps.
            most: stones that may be taken at once.
            low: stones of the smallest heap.
            high: stones of the largest.
            skill: the share of its opponent's moves that are the best; others are drawn at random.

        Raises:
            ConfigError: a setting that cannot work.
        """
        self.name = "nim"
        self.seed, self.most, self.low, self.high = seed, most, low, high
        self.skill = skill
        check_ranges(self, most=(1, 9), low=(1, 99), high=(1, 99), skill=(0, 1))
        if low > high:
            raise ConfigError(f"low must be at most high, got {low} and {high}")
        self.max_turns = high

    def prompt(self, index: int) -> Prompt:
        """A heap."""
        stones = Random(f"{self.seed}:{index}").randint(self.low, self.high)
        return Prompt(index, self._told(stones, 0), stones)

    def told(self, prompt: Prompt, player: int) -> str | tuple[Message, ...]:
        """The heap, and who the player is."""
        return self._told(int(prompt.truth), player)

    def position(self, prompt: Prompt, moves: tuple[Move, ...]) -> Position:
        """How many stones are left."""
        left = int(prompt.truth)
        for move in moves:
            taken = self._taken(move.text, left)
            if taken is None:
                lost = tuple(-1.0 if n == move.player else 1.0 for n in range(2))
                return Position(rewards=lost, broke_rules=move.player)
            left -= taken
            if not left:
                won = tuple(1.0 if n == move.player else -1.0 for n in range(2))
                return Position(rewards=won)
        return Position(len(moves) % 2, f"{left} left: " if moves else "")

    def legal(self, prompt: Prompt, moves: tuple[Move, ...]) -> list[str]:
        """How many may be taken."""
        left = self._left(prompt, moves)
        return [str(count) for count in range(1, min(self.most, left) + 1)]

    def opponent(self, prompt: Prompt, moves: tuple[Move, ...]) -> str:
        """The best move, where every move loses one stone; now and then another one, as `skill` says."""
        rng = Random(f"{self.seed}:{prompt.index}:{len(moves)}")
        if rng.random() >= self.skill:
            return rng.choice(self.legal(prompt, moves))
        return str(self._left(prompt, moves) % (self.most + 1) or 1)

    def _left(self, prompt: Prompt, moves: tuple[Move, ...]) -> int:
        taken = [self._taken(move.text, 99) or 0 for move in moves]
        return int(prompt.truth) - sum(taken)

    def _taken(self, text: str, left: int) -> int | None:
        """How many stones a move takes; None where it is against the rules."""
        said = text.strip()
        if not (said.isascii() and said.isdigit() and len(said) == 1):
            return None
        count = int(said)
        return count if 1 <= count <= min(self.most, left) else None

    def _told(self, stones: int, player: int) -> str:
        return f"{LETTERS[player]} {stones} stones: "
