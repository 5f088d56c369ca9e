"""Shaping: sticky actions, scaled and clipped rewards, stacked observations, between the policy and any rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector.utils import batch_space

from shoal import _native
from shoal.envs import masks
from shoal.envs.vec_env import ActionCheck, row_seeds, take, write
from shoal.types import ConfigError, Layout, map_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.envs.vec_env import Capabilities, PythonRows, VecEnv
    from shoal.types import Bools, Floats, Ready, Spec, Tree


@dataclass(frozen=True, slots=True)
class Shaping:
    """What the policy sees of an environment, in this order: sticky actions, the step, the reward's scale, its clip.

    Returns and lengths of episodes always count the environment's own rewards.
    """

    frame_stack: int = 1
    """Observations that the policy sees at once, the oldest first; an episode begins with its first one repeated."""
    sticky_actions: float = 0.0
    """Probability that a row does its previous action again instead of the chosen one (Machado et al. 2018)."""
    reward_scale: float = 1.0
    """Factor on every reward, before it is clipped."""
    reward_clip: tuple[float, float] | None = None
    """Bounds of the scaled reward."""
    reward_sign: bool = False
    """Rewards become -1, 0 or 1."""
    max_episode_steps: int = 0
    """Steps after which an episode is truncated; 0 leaves the environment's own limit."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        if self.frame_stack < 1 or self.max_episode_steps < 0:
            raise ConfigError(
                "frame_stack must be at least 1 and max_episode_steps at least 0, "
                f"got {self.frame_stack} and {self.max_episode_steps}"
            )
        if not 0 <= self.sticky_actions < 1:
            raise ConfigError(
                f"sticky_actions must be a probability below 1, got {self.sticky_actions}"
            )
        if not 0 < self.reward_scale < inf:
            raise ConfigError(
                f"reward_scale must be finite and above 0, got {self.reward_scale}"
            )
        if self.reward_clip is not None:
            if (
                len(self.reward_clip) != 2
                or not self.reward_clip[0] < self.reward_clip[1]
            ):
                raise ConfigError(
                    f"reward_clip must be a lower and an upper bound, got {self.reward_clip}"
                )
            if self.reward_sign:
                raise ConfigError(
                    "reward_clip and reward_sign exclude each other; leave one of them out"
                )

    @property
    def plain(self) -> bool:
        """Whether actions, rewards and observations stay as they are."""
        return self == Shaping(max_episode_steps=self.max_episode_steps)

    def spec(self, spec: Spec) -> Spec:
        """What a row behind this shaping observes: each leaf with a new first axis of `frame_stack`."""
        if self.frame_stack == 1:
            return spec
        if masks.in_observation(spec):
            raise ConfigError(
                f"{spec.env_id}: frame_stack would stack the {masks.KEY} in the observation; give it in the info"
            )
        space = batch_space(spec.observation_space, self.frame_stack)
        return replace(spec, observation_space=space, observation=Layout.of(space))

    def native(self) -> dict[str, Any]:
        """The keywords of `_native.Pool`."""
        low, high = self.reward_clip or (-inf, inf)
        names = ("frame_stack", "sticky_actions", "reward_scale", "reward_sign")
        return {name: getattr(self, name) for name in names} | {
            "reward_low": low,
            "reward_high": high,
        }

    def reward(self, reward: Floats) -> Floats:
        """The shaped rewards."""
        scaled = reward * self.reward_scale
        if self.reward_sign:
            return np.where(scaled > 0, 1.0, np.where(scaled < 0, -1.0, 0.0))
        return (
            scaled if self.reward_clip is None else np.clip(scaled, *self.reward_clip)
        )


class ShapedEnv:
    """Rows of any backend behind their shaping; the native backend does the same, bit for bit, in C++."""

    def __init__(self, env: VecEnv, shaping: Shaping) -> None:
        """`env`: closed with this object."""
        self.env, self.shaping = env, shaping
        self.num_rows = env.num_rows
        self._own_spec = shaping.spec(env.spec)
        self.spec = self._own_spec
        self._action = ActionCheck(env.spec)
        self._reward = np.zeros(self.num_rows)
        stacked = shaping.frame_stack > 1
        self._obs: Tree = (
            self.spec.observation.allocate(self.num_rows) if stacked else None
        )
        self._final_obs: Tree = (
            self.spec.observation.allocate(self.num_rows) if stacked else None
        )
        # What decides whether a row sticks: its seed, its steps since, whether its episode has an action, and which.
        self._seeds = np.random.SeedSequence().generate_state(self.num_rows, np.uint64)
        self._steps = np.zeros(self.num_rows, np.int64)
        self._begun = np.zeros(self.num_rows, np.bool_)
        self._last: Tree = env.spec.action.allocate(self.num_rows)
        self._anew: Bools | None = None
        """After a reset or restore: the rows whose stack begins anew with what is received next."""

    @property
    def capabilities(self) -> Capabilities:
        """What these rows can do."""
        return self.env.capabilities

    @property
    def native_pool(self) -> None:
        """Native code does not see what stands before its rows here."""
        return

    @property
    def python_rows(self) -> PythonRows | None:
        """The environments of the rows within."""
        return self.env.python_rows

    @property
    def dropped(self) -> Bools:
        """Rows that will never act again."""
        return self.env.dropped

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
        if self.shaping.sticky_actions == 0:
            self.env.send(rows, action)
            return
        first, last, _ = rows.indices(self.num_rows)
        mine = slice(first, last)
        if first < last:
            action = map_tree(np.copy, self._action.check(mine, action))
            sticks = self._begun[mine] & _native.sticky_rows(
                self._seeds[mine], self._steps[mine], self.shaping.sticky_actions
            )
            write(action, sticks, take(self._last, mine))
        self.env.send(rows, action)
        write(take(self._last, mine), slice(None), action)

    def recv(self) -> Ready:
        """The oldest rows under way, shaped."""
        ready = self.env.recv()
        rows, anew = ready.rows, self._anew
        ended = ready.terminated | ready.truncated
        self._anew = None
        if anew is None:
            self._reward[rows] = self.shaping.reward(ready.reward)
            self._steps[rows] += 1
            self._begun[rows] = ~ended
            if self._obs is not None:
                self._push(ready, ended)
        else:
            self._reward[:] = 0
            if self._obs is not None:
                write(self._final_obs, ended, self._obs)
                map_tree(partial(_fill, rows=anew | ended), self._obs, ready.obs)
            self._begun[anew | ended] = False
        shaped = replace(ready, reward=self._reward[rows])
        if self._obs is not None:
            shaped = replace(
                shaped, obs=take(self._obs, rows), final_obs=take(self._final_obs, rows)
            )
        return shaped

    def state(self) -> dict[str, Any]:
        """The state of the rows within, and what shaping remembers of them."""
        state = {
            "env": self.env.state(),
            "seeds": self._seeds.copy(),
            "steps": self._steps.copy(),
        }
        state |= {"begun": self._begun.copy(), "last": map_tree(np.copy, self._last)}
        return state | (
            {} if self._obs is None else {"stack": map_tree(np.copy, self._obs)}
        )

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`."""
        saved = map_tree(_frames, state["stack"]) if "stack" in state else None
        if saved != (None if self._obs is None else map_tree(_frames, self._obs)):
            raise ConfigError(
                f"{self.spec.env_id}: the saved state was made with another frame_stack"
            )
        lost = self.env.restore(state["env"])
        self._seeds[:], self._steps[:], self._begun[:] = (
            state["seeds"],
            state["steps"],
            state["begun"],
        )
        write(self._last, slice(None), state["last"])
        if self._obs is not None:
            write(self._obs, slice(None), state["stack"])
        self._begin(np.zeros(self.num_rows, np.bool_), [None] * self.num_rows)
        return lost

    def render(self, row: int) -> NDArray[np.uint8]:
        """What the row within looks like."""
        return self.env.render(row)

    def close(self) -> None:
        """Closes the rows."""
        self.env.close()

    def _begin(self, rows: Bools, seeds: Sequence[int | None]) -> None:
        for row, seed in enumerate(seeds):
            if rows[row] and seed is not None:
                self._seeds[row], self._steps[row] = seed & (2**64 - 1), 0
        self._anew = rows.copy()
        self.spec = replace(self._own_spec, masked=self.env.spec.masked)

    def _push(self, ready: Ready, ended: Bools) -> None:
        """Puts the rows' observations on their stacks. A step that only reset a row had no observation of its own."""

        def push(stack: Any, final: Any, obs: Any, last: Any) -> None:
            stack, final = stack[ready.rows], final[ready.rows]
            cut = ended & ~ready.valid
            final[cut] = stack[cut]
            stack[:, :-1] = stack[:, 1:]
            stack[:, -1] = obs
            whole = ended & ready.valid
            final[whole] = stack[whole]
            final[whole, -1] = last[whole]
            _fill(stack, obs, ended)

        map_tree(push, self._obs, self._final_obs, ready.obs, ready.final_obs)


def _frames(stack: Any) -> tuple[int, ...]:
    """The shape of one row's stack."""
    return np.shape(stack)[1:]


def _fill(stack: Any, obs: Any, rows: Bools) -> None:
    """The stacks of these rows hold their newest observation alone."""
    stack[rows] = obs[rows][:, None]
