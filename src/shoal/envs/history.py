"""History: what episodes of Python environments began from and the actions since, so that they can be played again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from shoal.envs.generators import spelled_out

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from shoal.envs.generators import Generators
    from shoal.types import Layout, Tree

Start: TypeAlias = dict[str, Any]
"""What a reset begins from: {"seed"}, {"generator"} or nothing, and perhaps "drawn" and "options"."""

MAX_STEPS = 100_000
"""Steps of one episode that are kept; an episode that goes on for longer cannot be saved."""
FIRST_ROOM = 64


class History:
    """The starts and actions of episodes, one of which is played at a time in each of n environments.

    Actions lie in one growing array of the packed layout, [n * room, rows of an environment, ...]: room for as many
    steps of each environment.
    """

    def __init__(
        self,
        actions: Layout,
        num_envs: int,
        *,
        rows_each: int = 1,
        max_steps: int | None = None,
    ) -> None:
        """`actions`: the layout of one row's action; `max_steps`: as MAX_STEPS."""
        self.max_steps = max_steps or MAX_STEPS
        self.starts: list[Start] = [{} for _ in range(num_envs)]
        self.lengths = np.zeros(num_envs, np.int64)
        """Steps of each environment's episode, those that are not kept included."""
        self._layout = actions
        self._rows_each = rows_each
        self._room = min(FIRST_ROOM, self.max_steps)
        self._leaves = self._allocate()
        self._firsts = np.arange(num_envs) * self._room
        """Where the actions of each environment begin."""
        self._sure = 0
        """Steps that surely fit before lengths must be looked at again."""
        self._full = False
        """Whether some episode has as many steps as are kept."""

    def begin(self, number: int, start: Start) -> None:
        """An environment begins an episode from `start`."""
        self.starts[number] = start
        self.lengths[number] = 0

    def record(self, numbers: slice, actions: Tree) -> None:
        """Notes one step of these environments: their rows' actions, [environments * rows of each, ...]."""
        if self._sure == 0:
            self._make_room()
        self._sure -= 1
        lengths = self.lengths[numbers]
        places = self._firsts[numbers] + lengths
        given = self._layout.flat(actions)
        if self._rows_each > 1:
            given = self._by_step(given, len(lengths))
        if self._full:
            kept = lengths < self.max_steps
            places = places[kept]
            given = [leaf[kept] for leaf in given]
        for leaf, new in zip(self._leaves, given, strict=True):
            leaf[places] = new
        lengths += 1

    def is_whole(self, number: int) -> bool:
        """Whether every action of the episode is kept."""
        return int(self.lengths[number]) <= self.max_steps

    def actions_of(self, number: int) -> Tree:
        """The actions of an episode, [steps * rows of an environment, ...]; none where they are not all kept."""
        count = 0
        if self.is_whole(number):
            count = int(self.lengths[number])
        first = int(self._firsts[number])
        copies: list[NDArray[Any]] = []
        for leaf, kind in zip(self._leaves, self._layout.leaves, strict=True):
            rows = leaf[first : first + count].copy()
            copies.append(rows.reshape(count * self._rows_each, *kind.shape))
        return self._layout.tree(copies)

    def resume(self, number: int, actions: Tree) -> None:
        """An environment was brought to where these actions led from its start."""
        given = self._layout.flat(actions)
        count = len(given[0]) // self._rows_each
        if self._rows_each > 1:
            given = self._by_step(given, count)
        self.lengths[number] = count
        self._make_room()
        first, kept = int(self._firsts[number]), min(count, self.max_steps)
        for leaf, new in zip(self._leaves, given, strict=True):
            leaf[first : first + kept] = new[:kept]

    def state(self, generators: Generators) -> dict[str, Any]:
        """Starts and actions. An episode that is not whole has none: its start is where its generator is now."""
        starts: list[Start] = []
        whole = self.lengths <= self.max_steps
        for number, start in enumerate(self.starts):
            if whole[number]:
                starts.append(spelled_out(start))
            else:
                starts.append(spelled_out(generators.start_of(number)))
        actions = [self.actions_of(number) for number in range(len(starts))]
        return {"starts": starts, "actions": actions, "whole": whole}

    def _make_room(self) -> None:
        longest = int(self.lengths.max())
        while self._room <= longest and self._room < self.max_steps:
            self._grow(min(2 * self._room, self.max_steps))
        self._full = longest >= self.max_steps
        self._sure = max(self._room - longest, 1)

    def _grow(self, room: int) -> None:
        before, small = self._leaves, self._room
        lengths = np.minimum(self.lengths, small).tolist()
        self._room = room
        self._leaves = self._allocate()
        self._firsts = np.arange(len(lengths)) * room
        # Only what is used is copied: memory that nobody has written to is not taken from the machine.
        for old, new in zip(before, self._leaves, strict=True):
            for number, count in enumerate(lengths):
                start, first = number * small, number * room
                new[first : first + count] = old[start : start + count]

    def _allocate(self) -> list[NDArray[Any]]:
        steps = len(self.starts) * self._room
        if self._rows_each == 1:
            return self._layout.flat(self._layout.allocate(steps))
        return self._layout.flat(self._layout.allocate(steps, self._rows_each))

    def _by_step(self, leaves: list[NDArray[Any]], count: int) -> list[NDArray[Any]]:
        """Leaves [count * rows of an environment, ...] as [count, rows of an environment, ...]."""
        pairs = zip(leaves, self._layout.leaves, strict=True)
        return [
            leaf.reshape(count, self._rows_each, *kind.shape) for leaf, kind in pairs
        ]


def play_again(
    state: dict[str, Any],
    replay: Callable[[int], str],
    cut: Callable[[int, Start | None], None],
    name: Callable[[int], str],
) -> list[str]:
    """Restores each environment of a state by playing its episode again; a sentence for each that had to be cut.

    Args:
        state: as `History.state` gives it, with what its backend adds.
        replay: plays an environment's episode; says why it did not come out the same, or nothing.
        cut: ends its episode as truncated and begins another, from a start or from where the generator is.
        name: names an environment and its rows.
    """
    starts: Sequence[Start] = state["starts"]
    whole = state.get("whole", np.ones(len(starts), np.bool_))
    lost: list[str] = []
    for number, start in enumerate(starts):
        if whole[number]:
            reason = replay(number)
            if not reason:
                continue
            cut(number, None)
        else:
            reason = (
                f"cannot be saved after more than {MAX_STEPS:,} steps of one episode"
            )
            cut(number, start)
        lost.append(f"{name(number)} {reason}; its episode is cut as truncated")
    return lost
