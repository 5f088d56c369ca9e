"""A toy game of letters for two or more players."""

from __future__ import annotations

from shoal.llm.tasks.game import Move, Position
from shoal.llm.tasks.task import Prompt
from tests.llm.toy import LETTERS


class Letters:
    """Each player says a text in each round; at the end the highest first letters win, and equal ones draw.

    A player is told who it is and the start's letter, and sees the first letters of the others since its last turn.
    """

    name = "letters"
    max_turns = 2

    def __init__(self, *, num_players: int = 2, seed: int = 0, held_out: bool = False) -> None:
        """Its starts are all that there are, also where they are held out."""
        self.num_players = num_players

    def prompt(self, index: int) -> Prompt:
        """One of eight."""
        return Prompt(index, self._told(index, 0))

    def told(self, prompt: Prompt, player: int) -> str:
        """Who it is, and the start's letter."""
        return self._told(prompt.index, player)

    def position(self, prompt: Prompt, moves: tuple[Move, ...]) -> Position:
        """A text without a letter is against the rules."""
        for move in moves:
            if not move.text[:1]:
                rewards = tuple(-1.0 if player == move.player else 1.0 for player in range(self.num_players))
                return Position(rewards=rewards, broke_rules=move.player)
        players = self.num_players
        if len(moves) == players * self.max_turns:
            sums = [sum(ord(move.text[0]) for move in moves if move.player == player) for player in range(players)]
            best, least = max(sums), min(sums)
            return Position(rewards=tuple(float(x == best) - float(x == least) for x in sums))
        since = moves[-(players - 1) :]
        return Position(len(moves) % players, "".join(move.text[0] for move in since))

    def opponent(self, prompt: Prompt, moves: tuple[Move, ...]) -> str:
        """The letter d."""
        return "d"

    def _told(self, index: int, player: int) -> str:
        return f"{LETTERS[player]}{LETTERS[index % len(LETTERS)]}?"
