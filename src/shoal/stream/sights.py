"""Sights: what rows see and have not acted on yet, by groups that act and step together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.types import map_tree, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.stream.roles import Role
    from shoal.types import Bools, Ready, Tree


class Sights:
    """Observations, action masks and turns of each group."""

    def __init__(self, groups: Sequence[slice]) -> None:
        """Of these rows; nothing was seen yet."""
        self._groups = groups
        self.obs: list[Tree] = []
        self.masks: list[Bools | None] = []
        self.turns: list[Bools | None] = []

    def begin(self, ready: Ready) -> None:
        """What all rows see after a reset or a restore."""
        mask, turn = ready.action_mask, ready.turn
        self.obs = [select(ready.obs, group) for group in self._groups]
        self.masks = [None if mask is None else mask[group] for group in self._groups]
        self.turns = [None if turn is None else turn[group] for group in self._groups]

    def take(self, number: int, ready: Ready) -> None:
        """What a group sees after a step."""
        self.obs[number] = ready.obs
        self.masks[number] = ready.action_mask
        self.turns[number] = ready.turn

    def of(self, role: Role) -> Tree:
        """What a role's rows see [n, ...]."""
        parts: list[Tree] = []
        for number, group in enumerate(self._groups):
            places = role.local(group)
            if places is not None:
                parts.append(select(self.obs[number], places[1]))
        return map_tree(lambda *leaves: np.concatenate(leaves), *parts)

    def values(self, role: Role) -> NDArray[np.float32]:
        """Values [n] of what a role's rows see.

        Where it is not a row's turn: the value of the step that it has under way.
        """
        values = np.zeros(len(role.start), np.float32)
        for number, group in enumerate(self._groups):
            places = role.local(group)
            if places is None:
                continue
            mine, theirs = places
            obs = select(self.obs[number], theirs)
            rows = np.arange(mine.start, mine.stop)
            masks = self.masks[number]
            mask = None if masks is None else masks[theirs]
            values[mine] = role.actor.value(
                obs, role.start[mine], rows, action_mask=mask
            )
            turn = self.turns[number]
            if role.held is not None and turn is not None:
                waiting = np.flatnonzero(~turn[theirs]) + mine.start
                values[waiting] = role.held.value[0, waiting]
        return values
