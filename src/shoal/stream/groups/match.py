"""One game under way: its moves, and what each player has of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any, Self

from shoal.llm.tasks.game import Move
from shoal.stream.groups.sides import packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.stream.groups.flight import Group
    from shoal.stream.groups.sides import Side


@dataclass(slots=True)
class Match:
    """A game that is not over."""

    moves: tuple[Move, ...]
    sides: dict[int, Side]
    """Of the players that models play, once they had a turn."""
    awaited: bool
    """Whether the game is asked what follows; else a model draws a turn."""

    def state(self, key: int, number: int) -> dict[str, Any]:
        """The game of this number in a group, as a checkpoint holds it."""
        return {
            "key": key,
            "number": number,
            "awaited": self.awaited,
            "moves": [[move.player, move.text] for move in self.moves],
            "sides": [packed(*side) for side in self.sides.items()],
        }

    @classmethod
    def of_state(cls, saved: Mapping[str, Any]) -> Self:
        """The game as it was."""
        moves = tuple(Move(int(player), text) for player, text in saved["moves"])
        sides = dict(unpacked(int(saved["key"]), side) for side in saved["sides"])
        return cls(moves, sides, awaited=bool(saved["awaited"]))

    def end(self, group: Group, number: int, rewards: tuple[float, ...] | None) -> int:
        """Gives what the learning players said and earned to the group.

        Args:
            group: the game's.
            number: of the game in it.
            rewards: of each player; None: the game is called off, and what was said is lost.

        Returns:
            Answers that are lost.
        """
        lost = 0
        for player in group.learners:
            answer, side = number * group.num_players + player, self.sides.get(player)
            spoke = side is not None and bool(side.said.chosen.any())
            group.reward[answer] = nan if rewards is None else rewards[player]
            if side is not None and spoke and rewards is not None:
                group.drawn[answer] = side.said
            elif rewards is None:
                lost += spoke
        return lost
