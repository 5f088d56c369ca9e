"""Rows of any backend behind their preprocessing: sticky actions, scaled and clipped rewards, stacked observations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import _native
from shoal.envs.actions import ActionCheck
from shoal.envs.finite import LARGEST, said
from shoal.envs.outputs import take, write
from shoal.envs.row_layer import RowLayer
from shoal.envs.vec_env import row_seeds
from shoal.types import ConfigError, EnvError, map_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.envs.preprocessing import Preprocessing
    from shoal.envs.vec_env import VecEnv
    from shoal.types import Bools, Ready, Spec, Tree


class PreprocessedEnv(RowLayer):
    """Rows of any backend behind their preprocessing; the native backend does the same, bit for bit, in C++."""

    native_pool = None

    def __init__(self, env: VecEnv, preprocessing: Preprocessing) -> None:
        """`env`: closed with this object. ConfigError where preprocessing does not fit it, as `reset` may find too."""
        self.env = env
        self.preprocessing = preprocessing
        self.num_rows = env.num_rows
        self._own_spec = self.spec = preprocessing.spec(env.spec)
        self._check_masks()
        self._reward = np.zeros(self.num_rows)
        self._stack: FrameStack | None = None
        if preprocessing.frame_stack > 1:
            self._stack = FrameStack(self.spec, self.num_rows)
        self._sticky = StickyActions(
            env.spec, self.num_rows, preprocessing.sticky_actions
        )
        self._anew: Bools | None = None
        """After a reset or restore: the rows whose stack begins anew with what is received next."""

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        seeds = row_seeds(seed, self.num_rows)
        self.env.reset(seed)
        self._begin(np.ones(self.num_rows, np.bool_), seeds)

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
        self._begin(rows, seeds)

    def send(self, rows: slice, action: Tree) -> None:
        """Starts a step of `rows` with `action`, or with what a row did before where it sticks."""
        if self.preprocessing.sticky_actions == 0:
            self.env.send(rows, action)
            return
        first, last, _ = rows.indices(self.num_rows)
        mine = slice(first, last)
        if first < last:
            action = self._sticky.stick(mine, action)
        self.env.send(rows, action)
        self._sticky.note(mine, action)

    def recv(self) -> Ready:
        """The oldest rows under way, preprocessed."""
        ready = self.env.recv()
        rows, anew, stack = ready.rows, self._anew, self._stack
        ended = ready.terminated | ready.truncated
        self._anew = None
        if anew is None:
            self._reward[rows] = self.preprocessing.reward(ready.reward)
            if self.preprocessing.may_overflow:
                self._check_rewards(rows)
            self._sticky.count(rows, ready.valid & ~ended)
            if stack is not None:
                stack.push(ready, ended)
        else:
            self._reward[:] = 0
            if stack is not None:
                write(stack.final_obs, ended, stack.obs)
                stack.fill(ready.obs, anew | ended)
            self._sticky.forget(anew | ended)
        seen = replace(ready, reward=self._reward[rows])
        if stack is not None:
            seen.obs = take(stack.obs, rows)
            seen.final_obs = take(stack.final_obs, rows)
        return seen

    def state(self) -> dict[str, Any]:
        """The state of the rows within, and what preprocessing remembers of them."""
        state = {"env": self.env.state()} | self._sticky.state()
        if self._stack is not None:
            state["stack"] = map_tree(np.copy, self._stack.obs)
        return state

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`."""
        saved = here = None
        if "stack" in state:
            saved = map_tree(_shape_of_row, state["stack"])
        if self._stack is not None:
            here = map_tree(_shape_of_row, self._stack.obs)
        if saved != here:
            raise ConfigError(
                f"{self.spec.env_id}: the saved state was made with another frame_stack"
            )
        lost = self.env.restore(state["env"])
        self._sticky.restore(state)
        if self._stack is not None:
            write(self._stack.obs, slice(None), state["stack"])
        self._begin(np.zeros(self.num_rows, np.bool_), [None] * self.num_rows)
        return lost

    def render(self, row: int) -> NDArray[np.uint8]:
        """What the row within looks like."""
        return self.env.render(row)

    def close(self) -> None:
        """Closes the rows."""
        self.env.close()

    def _begin(self, rows: Bools, seeds: Sequence[int | None]) -> None:
        self._check_masks()
        self._sticky.reseed(rows, seeds)
        self._anew = rows.copy()
        self.spec = replace(self._own_spec, masked=self.env.spec.masked)

    def _check_rewards(self, rows: slice) -> None:
        """EnvError where a scaled reward is too large for float32."""
        bad = np.flatnonzero(~(np.abs(self._reward[rows]) <= LARGEST))
        if len(bad):
            row = rows.start + bad[0]
            raise EnvError(
                f"{self.spec.env_id}: row {row} has after preprocessing {said('reward', self._reward[row])}"
            )

    def _check_masks(self) -> None:
        """ConfigError where a repeated action may be one that the environment's masks forbid."""
        if self.env.spec.masked and self.preprocessing.sticky_actions:
            raise ConfigError(
                f"{self.spec.env_id} masks actions, and sticky_actions would repeat one that is masked by then; "
                "set sticky_actions=0, or repeat actions in the environment"
            )


class StickyActions:
    """Whether a row does its last action again: by its seed, its steps since, and whether its episode has an action."""

    def __init__(self, spec: Spec, num_rows: int, probability: float) -> None:
        """`spec`: of the rows that are stepped."""
        self._probability = probability
        self._check = ActionCheck(spec)
        self._seeds = np.random.SeedSequence().generate_state(num_rows, np.uint64)
        self._steps = np.zeros(num_rows, np.int64)
        self._begun = np.zeros(num_rows, np.bool_)
        self._last: Tree = spec.action.allocate(num_rows)

    def reseed(self, rows: Bools, seeds: Sequence[int | None]) -> None:
        """The chosen rows with a seed go by it from now on."""
        for row, seed in enumerate(seeds):
            if rows[row] and seed is not None:
                self._seeds[row] = seed & (2**64 - 1)
                self._steps[row] = 0

    def stick(self, rows: slice, action: Tree) -> Tree:
        """The actions that are done; ValueError for one that the space lacks."""
        action = map_tree(np.copy, self._check.check(rows, action))
        drawn = _native.sticky_rows(
            self._seeds[rows], self._steps[rows], self._probability
        )
        write(action, self._begun[rows] & drawn, take(self._last, rows))
        return action

    def note(self, rows: slice, action: Tree) -> None:
        """These actions were done."""
        write(take(self._last, rows), slice(None), action)

    def count(self, rows: slice, going_on: Bools) -> None:
        """A step is over. The first action of an episode never sticks, nor what was sent to a row that only began."""
        self._steps[rows] += 1
        self._begun[rows] = going_on

    def forget(self, rows: Bools) -> None:
        """New episodes begin in these rows."""
        self._begun[rows] = False

    def state(self) -> dict[str, Any]:
        """Everything that decides."""
        return {
            "seeds": self._seeds.copy(),
            "steps": self._steps.copy(),
            "begun": self._begun.copy(),
            "last": map_tree(np.copy, self._last),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self._seeds[:] = state["seeds"]
        self._steps[:] = state["steps"]
        self._begun[:] = state["begun"]
        write(self._last, slice(None), state["last"])


class FrameStack:
    """The last observations of each row, the oldest first: each leaf [B, k, ...]."""

    def __init__(self, spec: Spec, num_rows: int) -> None:
        """`spec`: of the rows behind it, whose observations are stacks."""
        self.obs: Tree = spec.observation.allocate(num_rows)
        self.final_obs: Tree = spec.observation.allocate(num_rows)

    def push(self, ready: Ready, ended: Bools) -> None:
        """Puts the rows' observations on their stacks. A step that only reset a row began an episode with its own."""
        cut, whole = ended & ~ready.valid, ended & ready.valid
        begun = ended | ~ready.valid

        def push(
            stack: NDArray[Any],
            final: NDArray[Any],
            obs: NDArray[Any],
            last: NDArray[Any],
        ) -> None:
            stack, final = stack[ready.rows], final[ready.rows]
            final[cut] = stack[cut]
            stack[:, :-1] = stack[:, 1:]
            stack[:, -1] = obs
            final[whole] = stack[whole]
            final[whole, -1] = last[whole]
            _fill(stack, obs, begun)

        map_tree(push, self.obs, self.final_obs, ready.obs, ready.final_obs)

    def fill(self, obs: Tree, rows: Bools) -> None:
        """The stacks of these rows hold their newest observation alone, in every place."""

        def fill(stack: NDArray[Any], new: NDArray[Any]) -> None:
            _fill(stack, new, rows)

        map_tree(fill, self.obs, obs)


def _shape_of_row(stack: NDArray[Any]) -> tuple[int, ...]:
    return np.shape(stack)[1:]


def _fill(stack: NDArray[Any], obs: NDArray[Any], rows: Bools) -> None:
    stack[rows] = obs[rows][:, None]
