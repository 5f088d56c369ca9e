"""Rows of any backend whose steps have costs: these are handed over, and summed over episodes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.costs.env import STEP
from shoal.envs.row_layer import RowLayer
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.envs.vec_env import VecEnv
    from shoal.types import Bools, Ready, Tree

EPISODE = "cost"
"""The info of an episode's end: what its steps cost together."""


def costed(env: VecEnv) -> VecEnv:
    """The rows with costs in `Ready.cost`; themselves where steps have none."""
    if STEP not in env.spec.info_keys:
        return env
    try:
        return CostedEnv(env)
    except BaseException:
        env.close()
        raise


class CostedEnv(RowLayer):
    """Rows of any backend whose steps have costs."""

    native_pool = None

    def __init__(self, env: VecEnv) -> None:
        """`env`: closed with this object. ConfigError where it has an info called cost beside."""
        keys = tuple(key for key in env.spec.info_keys if key != STEP)
        if EPISODE in keys:
            raise ConfigError(
                f"{env.spec.env_id}: info_keys has {EPISODE!r}, but with cost_key an episode's cost is "
                f"logged as info/{EPISODE} already; leave it out of info_keys"
            )
        self.env, self.num_rows = env, env.num_rows
        self._own_spec = replace(env.spec, info_keys=(*keys, EPISODE), costs=True)
        self.spec = self._own_spec
        self._total = np.zeros(self.num_rows)
        """Of each row's episode so far."""
        self._anew: Bools | None = None
        """After a reset or restore: the rows that begin an episode with what is received next."""

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        self.env.reset(seed)
        self._begin(np.ones(self.num_rows, np.bool_))

    def restart(
        self,
        seeds: Sequence[int | None],
        rows: Bools,
        *,
        held: Bools,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Begins new episodes in some rows."""
        self.env.restart(seeds, rows, held=held, options=options)
        self._begin(rows)

    def send(self, rows: slice, action: Tree) -> None:
        """Starts a step of `rows`."""
        self.env.send(rows, action)

    def recv(self) -> Ready:
        """The oldest rows under way, with what their step cost; at an episode's end with what it cost together."""
        ready = self.env.recv()
        rows, anew = ready.rows, self._anew
        self._anew = None
        given = dict(ready.info)
        cost = given.pop(STEP)
        ended = ready.terminated | ready.truncated
        if anew is not None:
            cost = np.zeros(self.num_rows)
            ended = ended | anew
        cost = np.where(ready.valid, cost, 0.0)
        self._total[rows] += cost
        over = ready.terminated | ready.truncated
        given[EPISODE] = np.where(over, self._total[rows], np.nan)
        # A length of 0 ends an episode for learning only: in the environment it goes on.
        begun = ended & ((ready.episode_length > 0) | (anew is not None))
        self._total[rows][begun] = 0
        return replace(ready, info=given, cost=cost)

    def state(self) -> dict[str, Any]:
        """The state of the rows within, and what their episodes cost so far."""
        return {"env": self.env.state(), "cost": self._total.copy()}

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`."""
        lost = self.env.restore(state["env"])
        self._total[:] = state["cost"]
        self._begin(np.zeros(self.num_rows, np.bool_))
        return lost

    def render(self, row: int) -> NDArray[np.uint8]:
        """What the row within looks like."""
        return self.env.render(row)

    def close(self) -> None:
        """Closes the rows."""
        self.env.close()

    def _begin(self, rows: Bools) -> None:
        self._anew = rows.copy()
        self.spec = replace(self._own_spec, masked=self.env.spec.masked)
