"""Hindsight: transitions whose goal is replaced by one that was reached later in their episode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from gymnasium import spaces

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from shoal.envs.vec_env import VecEnv
    from shoal.memory.replay import ReplayMemory
    from shoal.types import Spec, Transitions

ACHIEVED, DESIRED = "achieved_goal", "desired_goal"
NO_STEP, BROKEN = 4, 8 | 16
"""Flags of a record: the last observation of an episode; one that does not go on from the record before it."""
HEAD_WORDS = 3
"""Words of a slot before the observation: the sequence number, the reward and version, the flags."""


class Goals(Protocol):
    """What an environment says of goals [N, ...], for whole arrays at once."""

    def compute_reward(self, achieved: Any, desired: Any, info: Any, /) -> Any:
        """The rewards [N] of steps that came to `achieved`."""
        ...


class Hindsight:
    """Goals of a share of each batch become those that a later step of the same episode achieved ("future").

    Andrychowicz et al. 2017, arXiv 1707.01495. The later step is drawn uniformly, that of the transition itself
    included; the reward, and where the environment has `compute_terminated` the discount, are those of the new goal.
    """

    def __init__(
        self,
        memory: ReplayMemory,
        goals: Goals,
        *,
        share: float,
        gamma: float,
        seed: int,
        reward_scale: float = 1.0,
    ) -> None:
        """`share` of each batch, drawn from `seed`; rewards are multiplied by `reward_scale`."""
        check_goals(memory.spec)
        self.memory, self.goals, self.share = memory, goals, share
        self.gamma, self.reward_scale = gamma, reward_scale
        self._rng = np.random.Generator(np.random.PCG64([seed, 2]))
        at = HEAD_WORDS
        for leaf in memory.form.obs.leaves:
            words = -(-leaf.nbytes(()) // 8)
            if leaf.path == (ACHIEVED,):
                self._leaf, self._words = leaf, slice(at, at + words)
            at += words
        rows = memory.num_rows
        self._looked_at = np.zeros(rows, np.int64)
        self._ends: list[NDArray[np.int64]] = [np.zeros(0, np.int64)] * rows
        """Of each row, the records that are the last of their episodes."""

    def relabel(self, batch: Transitions) -> None:
        """Changes goals, rewards and discounts of the share of a batch that the memory's reader drew, in place."""
        chosen = np.flatnonzero(self._rng.random(len(batch.key)) < self.share)
        places = self._rng.random(len(chosen))
        if not len(chosen):
            return
        rows = batch.key[chosen] % self.memory.num_rows
        index = batch.key[chosen] // self.memory.num_rows
        ahead = self._ends_of(rows, index) - index
        later = index + 1 + (places * ahead).astype(np.int64)
        desired = self._achieved(rows, later)
        where = torch.from_numpy(chosen)
        for seen in (batch.obs, batch.next_obs):
            seen[DESIRED][where] = torch.from_numpy(desired)
        achieved = batch.next_obs[ACHIEVED][where].numpy()
        reward = np.asarray(self.goals.compute_reward(achieved, desired, {}))
        batch.reward[where] = self._numbers(reward * self.reward_scale, "reward")
        terminated: Callable[..., Any] | None = getattr(
            self.goals, "compute_terminated", None
        )
        if terminated is not None:
            goes_on = 1.0 - np.asarray(terminated(achieved, desired, {}), np.float64)
            goes_on = np.broadcast_to(goes_on, chosen.shape)
            batch.discount[where] = self._numbers(self.gamma * goes_on, "terminated")

    def state(self) -> dict[str, Any]:
        """What it goes on from, beside the memory."""
        return dict(self._rng.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`, when the memory was restored."""
        self._rng.bit_generator.state = state
        self._looked_at[:] = 0
        self._ends = [np.zeros(0, np.int64)] * self.memory.num_rows

    def _numbers(self, values: NDArray[Any], name: str) -> torch.Tensor:
        if values.ndim != 1 or not np.isfinite(values).all():
            raise ConfigError(
                f"{self.memory.spec.env_id}: compute_{name} must give finite numbers [N] for goals [N, ...], got "
                f"{list(values.shape)}"
            )
        return torch.from_numpy(values.astype(np.float32))

    def _ends_of(
        self, rows: NDArray[np.int64], index: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The last record of each one's episode so far."""
        found = np.zeros_like(index)
        for row in np.unique(rows).tolist():
            here = rows == row
            newest = self._look_at(row)
            ends = np.append(self._ends[row], newest)
            found[here] = ends[np.searchsorted(ends[:-1], index[here] + 1)]
        return found

    def _look_at(self, row: int) -> int:
        """Takes in what a row has done since it was looked at; its newest record."""
        memory = self.memory
        count = int(memory.heads[row, 0])
        first = max(int(self._looked_at[row]), count - memory.slots)
        new = np.arange(first, count)
        flags = memory.ring[row, new % memory.slots, HEAD_WORDS - 1]
        ends = np.concatenate([new[flags & NO_STEP != 0], new[flags & BROKEN != 0] - 1])
        known = self._ends[row]
        known = known[known >= count - memory.slots]
        self._ends[row] = np.union1d(known, ends)
        self._looked_at[row] = count
        return count - 1

    def _achieved(
        self, rows: NDArray[np.int64], index: NDArray[np.int64]
    ) -> NDArray[Any]:
        """The achieved goals [N, ...] of records."""
        words = self.memory.ring[rows, index % self.memory.slots, self._words]
        own = np.ascontiguousarray(words).view(np.uint8)[:, : self._leaf.nbytes(())]
        values = np.ascontiguousarray(own).view(self._leaf.dtype)
        return values.reshape(len(rows), *self._leaf.shape)


def check_goals(spec: Spec) -> None:
    """ConfigError unless observations hold an achieved and a desired goal of one kind."""
    space = spec.observation_space
    parts = space.spaces if isinstance(space, spaces.Dict) else {}
    achieved, desired = parts.get(ACHIEVED), parts.get(DESIRED)
    alike = False
    if isinstance(achieved, spaces.Box) and isinstance(desired, spaces.Box):
        alike = (achieved.shape, achieved.dtype) == (desired.shape, desired.dtype)
    if not alike:
        raise ConfigError(
            f"{spec.env_id}: replay.hindsight needs observations with the keys {ACHIEVED} and {DESIRED}, two Boxes of "
            f"one shape and type, got {space}; set it to 0"
        )
    if spec.frame_stack > 1:
        raise ConfigError(
            "replay.hindsight does not take stacks of frames apart; set preprocessing.frame_stack to 1"
        )


def goals_of(env: VecEnv) -> Goals:
    """The environment's own rules for goals; ConfigError where they are out of reach."""
    rows = env.python_rows
    goals: Any = None if rows is None else rows.envs[0].unwrapped
    if not callable(getattr(goals, "compute_reward", None)):
        why = 'they are not in this process (backend="serial" is)'
        if rows is not None:
            why = f"{type(goals).__name__} has none"
        raise ConfigError(
            f"{env.spec.env_id}: replay.hindsight needs the environment's compute_reward(achieved, desired, info) for "
            f"whole arrays: {why}"
        )
    return goals
