"""Numbering: which row belongs to which agent of which environment, and how messages name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from shoal.envs.row_keeper import RowKeeper


class Numbering:
    """Row e * A + a is agent a of environment e."""

    def __init__(self, keeper: RowKeeper, agents: Sequence[str]) -> None:
        """`agents`: those of one environment, in order."""
        self.count = len(agents)
        """Agents of one environment, A."""
        self._keeper = keeper
        self._slots = {agent: slot for slot, agent in enumerate(agents)}

    def rows(self, env: int) -> slice:
        """The rows of an environment."""
        return slice(env * self.count, (env + 1) * self.count)

    def row(self, env: int, agent: str) -> int:
        """The row of an agent."""
        return env * self.count + self._slots[agent]

    def rows_of(self, agents: Iterable[tuple[int, str]]) -> NDArray[np.int64]:
        """The rows of several agents, each given by its environment and name."""
        return np.array([self.row(env, agent) for env, agent in agents], np.int64)

    def named(self, env: int) -> str:
        """An environment by its rows."""
        rows, first = self.rows(env), self._keeper.first_row
        last = rows.stop - 1 + first
        return f"{self._keeper.spec.env_id}: rows {rows.start + first}..{last}"

    def where(self, env: int, step: int) -> str:
        """An environment and the step of its episode, 0 for the reset."""
        when = f"at step {step} of the episode" if step else "at the reset"
        return f"{self.named(env)} {when}"

    def at(self, env: int, agent: str) -> str:
        """An agent and the step of its episode."""
        keeper, row = self._keeper, self.row(env, agent)
        step = keeper.lengths[row]
        return f"{keeper.spec.env_id}: row {row + keeper.first_row} ({agent}) at step {step}"
