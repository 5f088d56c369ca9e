"""Parts of a rollout: what one actor's rows saw, did and got, and how the parts become one slab."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.memory.arena import ALIGN
from shoal.memory.slab import BOOLS
from shoal.stream.spans import Recorded
from shoal.types import Episodes, Tree, assign, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.memory.slab import Slab
    from shoal.stream.in_process import InProcess


@dataclass(frozen=True, slots=True)
class RolePart:
    """The steps [T, n] of a role's rows."""

    numbers: dict[str, NDArray[Any]]
    obs: Tree
    action: Tree
    states: Tree
    """Recurrent states before each step, where they are recorded."""
    action_mask: NDArray[np.bool_] | None
    final_obs: Tree
    """Of episodes that ended, as `final_index` counts them."""
    first_state: Tree
    """The recurrent state before the first step."""
    latest: Tree
    """What the rows see and have not acted on yet."""
    executed: Tree = ()
    """What rows did where that may differ from `action`, where it is recorded."""


@dataclass(frozen=True, slots=True)
class Part:
    """What an actor collected in one go."""

    roles: dict[str, RolePart]
    episodes: Episodes
    ended_at: list[int]
    """In which step each of them ended."""
    seconds: dict[str, float]
    """Of the actor, by activity."""
    recorded: Recorded | None = None
    """What the actor did since its last part, where a timeline is recorded."""
    shard: dict[str, Any] = field(default_factory=dict)
    """What its own memory holds now, where the steps stay there."""

    def saved(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return {
            "roles": {name: _fields(part) for name, part in self.roles.items()},
            "episodes": _fields(self.episodes),
            "ended_at": list(self.ended_at),
            "seconds": dict(self.seconds),
            "recorded": None if self.recorded is None else _fields(self.recorded),
            "shard": dict(self.shard),
        }

    @classmethod
    def of_saved(cls, saved: Mapping[str, Any]) -> Part:
        """What `saved` gave."""
        roles = {name: RolePart(**part) for name, part in saved["roles"].items()}
        episodes = Episodes(**saved["episodes"])
        seconds, ended_at = dict(saved["seconds"]), list(saved["ended_at"])
        recorded = Recorded.of_saved(saved.get("recorded"))
        shard = dict(saved.get("shard", {}))
        return cls(roles, episodes, ended_at, seconds, recorded, shard)

    def copied(self) -> Part:
        """The same in memory of its own."""
        return Part.of_saved(map_tree(_copied, self.saved()))


def part_of(
    collects: InProcess,
    episodes: Episodes,
    seconds: dict[str, float],
    recorded: Recorded | None = None,
) -> Part:
    """The rollout that was collected last; its arrays are those of the slabs."""
    roles: dict[str, RolePart] = {}
    for number, role in enumerate(collects.roles):
        slab = collects.slabs[number]
        state = collects.states[number]
        ended = int(slab.final_index.max()) + 1
        roles[role.name] = RolePart(
            numbers={name: getattr(slab, name) for name in slab.numbers},
            obs=slab.obs,
            action=slab.action,
            states=slab.states,
            action_mask=slab.action_mask,
            final_obs=select(slab.final_obs, slice(0, ended)),
            first_state=None if state is None else map_tree(torch.Tensor.numpy, state),
            latest=collects.latest(number),
            executed=slab.executed,
        )
    return Part(roles, episodes, list(collects.ended_at), seconds, recorded)


def room_of(slab: Slab) -> int:
    """Bytes that a rollout in this slab may take, a final observation for every step included."""
    trees = [slab.obs, slab.obs, slab.action, slab.executed, slab.states]
    trees += [getattr(slab, name) for name in slab.numbers]
    if slab.action_mask is not None:
        trees.append(slab.action_mask)
    total = 0

    def add(x: NDArray[Any]) -> None:
        nonlocal total
        total += x.nbytes + ALIGN

    for tree in trees:
        map_tree(add, tree)
    return total


class Joining:
    """Makes one slab of the parts that several actors have of a role."""

    def __init__(self, slab: Slab) -> None:
        """Into this slab, which is cleared."""
        slab.clear()
        self._slab = slab
        self._final: list[Tree] = []
        self._state: list[tuple[NDArray[np.intp], Tree]] = []
        self._latest: list[tuple[NDArray[np.intp], Tree]] = []

    def put(self, columns: NDArray[np.intp], part: RolePart) -> None:
        """The steps of the rows that stand at `columns` of the role."""
        slab = self._slab
        at = (slice(None), _neighbors(columns))
        for name in slab.numbers:
            getattr(slab, name)[at] = part.numbers[name]
        assign(slab.obs, at, part.obs)
        assign(slab.action, at, part.action)
        assign(slab.states, at, part.states)
        assign(slab.executed, at, part.executed)
        if slab.action_mask is not None:
            slab.action_mask[at] = part.action_mask
        index = part.numbers["final_index"]
        slab.final_index[at] = np.where(index >= 0, index + slab.num_final, -1)
        count = int(index.max(initial=-1)) + 1
        self._final.append(map_tree(np.copy, select(part.final_obs, slice(0, count))))
        slab.num_final += count
        self._state.append((columns, map_tree(_copied, part.first_state)))
        self._latest.append((columns, map_tree(np.copy, part.latest)))

    def lose(self, columns: NDArray[np.intp]) -> None:
        """Rows that nobody steps any more: none of their steps count."""
        at = (slice(None), _neighbors(columns))
        for name in BOOLS:
            getattr(self._slab, name)[at] = False
        self._slab.reward[at] = 0

    def finish(self) -> tuple[Tree, Tree]:
        """Numbers final observations by (step, row), as one process does; first states as tensors, latest sights."""
        slab = self._slab
        ends = (slab.final_index >= 0).nonzero()
        order = slab.final_index[ends]
        if len(order):
            final = map_tree(_concatenated, *self._final)
            assign(slab.final_obs, slice(0, len(order)), select(final, order))
        slab.final_index[ends] = np.arange(len(order), dtype=np.int32)
        slab.num_final = len(order)
        state = _by_row(slab.num_rows, self._state)
        if state is not None:
            state = map_tree(torch.from_numpy, state)
        return state, _by_row(slab.num_rows, self._latest)


def joined_episodes(parts: Mapping[int, Part], info_keys: Sequence[str]) -> Episodes:
    """The episodes of several actors, by the number of each one's first row, in the order of (step, row)."""
    steps = np.array([t for part in parts.values() for t in part.ended_at], np.int64)
    if not len(steps):
        return Episodes.none(info_keys)
    order = np.argsort(steps, kind="stable")
    every = [part.episodes for part in parts.values()]
    info: dict[str, NDArray[np.float64]] = {}
    for key in info_keys:
        info[key] = np.concatenate([one.info[key] for one in every])[order]
    rows = [part.episodes.rows + first for first, part in parts.items()]
    return Episodes(
        np.concatenate([one.returns for one in every])[order],
        np.concatenate([one.lengths for one in every])[order],
        info,
        np.concatenate(rows)[order],
    )


def _neighbors(columns: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """A slice where the columns are neighbors, which is faster."""
    first = int(columns[0])
    if (columns == np.arange(first, first + len(columns))).all():
        return slice(first, first + len(columns))
    return columns


def _by_row(count: int, parts: list[tuple[NDArray[np.intp], Tree]]) -> Tree:
    """Trees of some rows as one of all; None where they are."""
    found = [tree for _, tree in parts]
    if not found or found[0] is None:
        return None

    def room(x: NDArray[Any]) -> NDArray[Any]:
        return np.zeros((count, *x.shape[1:]), x.dtype)

    whole = map_tree(room, found[0])
    for columns, tree in parts:
        assign(whole, columns, tree)
    return whole


def _copied(leaf: Any) -> Any:
    """An array in memory of its own; what is none, as it is."""
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def _fields(record: Any) -> dict[str, Any]:
    return {part.name: getattr(record, part.name) for part in fields(record)}


def _concatenated(*parts: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(parts)
