"""A rollout that is under way: how far it is, so that it can be saved between two steps and gone on with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shoal.memory.begun import cut, first_steps, put_first_steps
from shoal.types import Episodes, select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.memory.slab import Slab
    from shoal.stream.roles import Role
    from shoal.types import Ready


class Between(Protocol):
    """What somebody wants of rows between two of their steps."""

    def due(self) -> bool:
        """Whether there is something; asked at every step."""
        ...

    def pause(self) -> None:
        """Does it: no row is under way. An exception leaves the rollout as it is, and the next call goes on with it."""
        ...


class UnderWay:
    """Steps that each group of rows has come to in this rollout, and the episodes that ended in them."""

    def __init__(self, num_groups: int) -> None:
        """None is under way."""
        self.begun = False
        self.done = [0] * num_groups
        """Steps that each group has taken."""
        self.ends: list[tuple[float, ...]] = []
        """Of each episode that ended: row, return, length, and what else the environment says of it."""
        self.ended_at: list[int] = []
        """In which step each of them ended."""

    def begin(self) -> None:
        """From the first step."""
        self.begun = True
        self.done = [0] * len(self.done)
        self.ends.clear()
        self.ended_at.clear()

    def note_ends(self, t: int, ready: Ready, keys: Sequence[str]) -> None:
        """Keeps the episodes that ended in step t."""
        for row in np.flatnonzero(ready.over):
            numbers = [ready.info[key][row] for key in keys]
            number = ready.rows.start + row
            episode = (number, ready.episode_return[row], ready.episode_length[row])
            self.ends.append((*episode, *numbers))
            self.ended_at.append(t)

    def episodes(self, keys: Sequence[str]) -> Episodes:
        """Those that ended."""
        columns = self._ends(keys).T
        info = dict(zip(keys, columns[3:], strict=True))
        rows, lengths = columns[0].astype(np.int64), columns[2].astype(np.int64)
        return Episodes(columns[1], lengths, info, rows)

    def state(
        self, roles: Sequence[Role], slabs: Sequence[Slab], keys: Sequence[str]
    ) -> dict[str, Any]:
        """All that `restore` needs, beside the rows and who acts in them; arrays are views."""
        count = max(self.done)
        finals: dict[str, Any] = {}
        for role in roles:
            finals[role.name] = [
                {"t": t, "rows": rows, "values": values}
                for t, rows, values in role.final_values
            ]
        pairs = zip(roles, slabs, strict=True)
        return {
            "done": list(self.done),
            "ends": self._ends(keys),
            "ended_at": list(self.ended_at),
            "final_values": finals,
            "steps": {role.name: first_steps(slab, count) for role, slab in pairs},
        }

    def restore(
        self, saved: Mapping[str, Any], roles: Sequence[Role], slabs: Sequence[Slab]
    ) -> None:
        """Continues from `saved`."""
        self.begun = True
        self.done = [int(count) for count in saved["done"]]
        self.ends = [tuple(end) for end in saved["ends"].tolist()]
        self.ended_at = [int(t) for t in saved["ended_at"]]
        for role, slab in zip(roles, slabs, strict=True):
            put_first_steps(slab, saved["steps"][role.name])
            role.final_values[:] = [
                (int(one["t"]), one["rows"], one["values"])
                for one in saved["final_values"][role.name]
            ]

    def _ends(self, keys: Sequence[str]) -> NDArray[np.float64]:
        return np.array(self.ends, np.float64).reshape(-1, 3 + len(keys))


def cut_restored(role: Role, slab: Slab, t: NDArray[np.int64], ready: Ready) -> None:
    """Ends episodes that could not be restored: truncated by the row's last step, t - 1 of each of its rows [n]."""
    rows = np.flatnonzero(ready.truncated[role.rows] & (t > 0))
    over = slab.terminated[t[rows] - 1, rows] | slab.truncated[t[rows] - 1, rows]
    rows = rows[slab.valid[t[rows] - 1, rows] & ~over]
    final_obs = select(ready.final_obs, role.rows)
    for row in rows:
        at, last = int(t[row]) - 1, np.array([row])
        seen = select(final_obs, last)
        cut(slab, at, int(row), seen)
        if role.values:
            values = role.actor.value(seen, np.zeros(1, np.bool_), last)
            role.final_values.append((at, last, values))
