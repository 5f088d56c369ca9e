"""Rows of any backend behind an action guard: what it changes of actions is counted, and kept for those who learn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.action_guard.rows import GuardRows
from shoal.envs.outputs import take, write
from shoal.envs.row_layer import RowLayer
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.envs.action_guard.settings import ActionGuard
    from shoal.envs.vec_env import VecEnv
    from shoal.types import Bools, Ready, Tree

SHARE = "action_guard/share"
"""The info of an episode's end: the share of its steps whose action was changed."""


def guarded(
    env: VecEnv, guard: ActionGuard, *, sticky: bool = False, playing: bool = False
) -> VecEnv:
    """The rows behind their guard; themselves where it lets everything pass.

    Args:
        env: closed with the result, and where this raises.
        guard: what is allowed.
        sticky: whether rows repeat actions of themselves.
        playing: whether nobody learns from the rewards: they stay the environment's own.

    Raises:
        ConfigError: the guard does not fit the environment.
    """
    try:
        if guard.idle:
            if guard.penalty:
                raise ConfigError(
                    "action_guard.penalty is for actions that are changed, but nothing is limited; set "
                    "action_guard.low, high, max_change, constraint or inequalities, or leave it out"
                )
            return env
        if sticky:
            raise ConfigError(
                f"{env.spec.env_id}: sticky_actions would repeat an action that the action guard forbids by then; set "
                "sticky_actions=0, or repeat actions in the environment"
            )
        if env.spec.agents:
            raise ConfigError(
                f"{env.spec.env_id} has several agents, which take no action guard; guard their actions in the "
                "environment"
            )
        return GuardedEnv(env, guard, penalty=0.0 if playing else guard.penalty)
    except BaseException:
        env.close()
        raise


class GuardedEnv(RowLayer):
    """Rows of any backend behind an action guard."""

    native_pool = None

    def __init__(self, env: VecEnv, guard: ActionGuard, *, penalty: float) -> None:
        """`env`: closed with this object; `penalty`: subtracted from rewards where an action was changed."""
        self.env, self.penalty = env, penalty
        self.num_rows = env.num_rows
        self.guard = GuardRows(guard, env.spec, env.num_rows)
        keys = (*env.spec.info_keys, SHARE)
        self._own_spec = replace(env.spec, info_keys=keys, guarded=True)
        self.spec = self._own_spec
        self._obs: Tree = None
        if self.guard.sees:
            self._obs = env.spec.observation.allocate(self.num_rows)
        self._done: NDArray[Any] = env.spec.action.allocate(self.num_rows)
        """What each row does in the step under way."""
        self._changed = np.zeros(self.num_rows, np.bool_)
        """Whether its policy wanted something else."""
        self._steps = np.zeros(self.num_rows, np.int64)
        """Of each row's episode so far."""
        self._changes = np.zeros(self.num_rows, np.int64)
        """Those that were changed."""
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
        """Starts a step of `rows` with what the guard makes of `action`."""
        first, last, every = rows.indices(self.num_rows)
        if first >= last or every != 1:
            self.env.send(rows, action)  # which refuses them
            return
        mine = slice(first, last)
        seen = None if self._obs is None else take(self._obs, mine)
        done, changed = self.guard.guarded(mine, seen, action)
        self.env.send(rows, done)
        self._done[mine], self._changed[mine] = done, changed

    def recv(self) -> Ready:
        """The oldest rows under way, with what they did, and the share of changed steps of episodes that ended."""
        ready = self.env.recv()
        rows, anew = ready.rows, self._anew
        self._anew = None
        if self._obs is not None:
            write(take(self._obs, rows), slice(None), ready.obs)
        share = np.full(rows.stop - rows.start, np.nan)
        info = {**ready.info, SHARE: share}
        if anew is not None:
            ended = anew | ready.terminated | ready.truncated
            self.guard.forget(ended)
            self._steps[ended] = self._changes[ended] = 0
            return replace(ready, info=info)
        changed = self._changed[rows] & ready.valid
        self._steps[rows] += ready.valid
        self._changes[rows] += changed
        # A length of 0 ends an episode for learning only: in the environment it goes on.
        ended = (ready.terminated | ready.truncated) & (ready.episode_length > 0)
        self.guard.note(rows, self._done[rows], ready.valid & ~ended)
        share[ended] = (self._changes[rows] / np.maximum(self._steps[rows], 1))[ended]
        over = ended | ~ready.valid
        self._steps[rows][over] = self._changes[rows][over] = 0
        reward = ready.reward
        if self.penalty:
            reward = reward - self.penalty * changed
        return replace(
            ready, reward=reward, info=info, executed=self._done[rows], changed=changed
        )

    def state(self) -> dict[str, Any]:
        """The state of the rows within, and what the guard remembers of them."""
        counts = {"steps": self._steps.copy(), "changes": self._changes.copy()}
        return {"env": self.env.state(), "guard": self.guard.state() | counts}

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`."""
        saved = state["guard"]
        self.guard.restore(saved)
        lost = self.env.restore(state["env"])
        self._steps[:], self._changes[:] = saved["steps"], saved["changes"]
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
