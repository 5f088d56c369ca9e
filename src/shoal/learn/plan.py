"""Plan: a policy lowered to native code, which acts and collects whole rollouts; gradients.py has how it learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from gymnasium import spaces

from shoal import _native
from shoal.learn.gradients import (
    Gradients,
    flattened,
    memory_of,
    reads_as_it_is,
    refresh_normalizer,
)
from shoal.nets.distributions import NEVER
from shoal.nets.heads import head_size
from shoal.nets.policy import Output
from shoal.types import map_tree

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from shoal.envs.vec_env import Linked, NativePool
    from shoal.learn.gradients import Lowered
    from shoal.types import Bools, Spec, Tree


class RolloutArrays(Protocol):
    """The arrays [T, B, ...] that a native rollout fills; a slab has them."""

    obs: Any
    action: NDArray[Any]
    start: NDArray[np.bool_]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    log_prob: NDArray[np.float32]
    value: NDArray[np.float32]
    next_value: NDArray[np.float32]
    reward: NDArray[np.float32]
    final_index: NDArray[np.int32]
    final_obs: Any
    episode_return: NDArray[np.float64]
    episode_length: NDArray[np.int64]
    episode_info: NDArray[np.float64]


class Noise(NamedTuple):
    """What the noise of n rows' actions is a function of."""

    seed: int
    stream: int
    rows: NDArray[np.int64]
    """The rows' numbers."""
    steps: NDArray[np.int64]
    """The steps that each row has acted so far."""


class Plan:
    """A lowered policy on weights that it shares with torch.

    A recurrent policy's memory is the tree that torch has for it: h [B, H], or (h, c).
    """

    def __init__(
        self,
        native: _native.MlpPlan | _native.RecurrentPlan,
        policy: Lowered,
        spec: Spec,
        flat: Tensor,
    ) -> None:
        """Made by `lower`."""
        self.native, self.policy, self.flat = native, policy, flat
        self._calls: Any = native  # a recurrent plan takes its memory too
        self.space: Any = spec.action_space
        self.discrete = not isinstance(self.space, spaces.Box)
        self.action_shape = spec.action.single.shape
        self.action_size = int(np.prod(self.action_shape))
        self.start = self.space.start if self.discrete else 0
        self._shifted = bool(np.any(self.start))
        self.logits = head_size(spec.action_space)
        self.gradients = Gradients(native, policy)
        self._plain = reads_as_it_is(policy.encoder)
        self._slab: RolloutArrays | None = None
        self._slab_arrays: list[NDArray[Any]] = []
        self.refresh_normalizer()
        if not self.discrete:
            with np.errstate(over="ignore"):  # beyond float32 there is no bound
                low = np.asarray(self.space.low, np.float32)
                high = np.asarray(self.space.high, np.float32)
            native.set_action_bounds(low, high)

    def refresh_normalizer(self) -> None:
        """Takes over the policy's frozen statistics."""
        refresh_normalizer(self.native, self.policy)

    def act(
        self,
        obs: Tree,
        start: Bools,
        state: Tree,
        noise: Noise,
        *,
        greedy: bool,
        action_mask: Bools | None = None,
        epsilon: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """Actions, log-probabilities and values of n observations; `state` [n, H] advances in place.

        `epsilon` [n] is how often the rows of a Q-network explore.
        """
        n = len(noise.rows)
        kind = np.int64 if self.discrete else np.float32
        action = np.empty((n, self.action_size), kind)
        log_prob, value = np.empty(n, np.float32), np.empty(n, np.float32)
        self._calls.act(
            self._rows(obs),
            *memory_of(self.native, start, state),
            *noise,
            greedy,
            action,
            log_prob,
            value,
            mask=action_mask,
            **_explored(epsilon),
        )
        return action.reshape(n, *self.action_shape), log_prob, value

    def value(
        self,
        obs: Tree,
        start: Bools,
        state: Tree,
        *,
        action_mask: Bools | None = None,
    ) -> NDArray[np.float32]:
        """Values of n observations, a Q-network's among the options of `action_mask`; nothing advances."""
        rows = self._rows(obs)
        value = np.empty(len(rows), np.float32)
        logits = np.empty((len(rows), self.logits), np.float32)
        self._calls.forward(rows, *memory_of(self.native, start, state), logits, value)
        if action_mask is not None and self.gradients.of_values:
            return np.where(action_mask, logits, NEVER).max(-1)
        return value

    def outputs(self, obs: Tree, *, lead: tuple[int, ...] | None = None) -> Output:
        """What a policy without memory says of observations [B, ...], as [B], or as [*lead] of B elements."""
        rows = self._rows(map_tree(torch.Tensor.numpy, obs))
        logits = np.empty((len(rows), self.logits), np.float32)
        value = np.empty(len(rows), np.float32)
        self._calls.forward(rows, logits, value)
        lead = lead or value.shape
        shaped = torch.from_numpy(logits).view(*lead, self.logits)
        head = self.policy.head(shaped, self.policy.log_std)
        return Output(head, torch.from_numpy(value).view(lead), None)

    def _rows(self, obs: Tree) -> NDArray[np.float32]:
        """Observations [n, ...] as the vectors [n, N] that normalization begins with."""
        if self._plain:
            return _flat(obs)
        return flattened(self.policy, map_tree(torch.from_numpy, obs)).numpy()

    def to_env(self, action: NDArray[Any]) -> NDArray[Any]:
        """The action as the environment takes it."""
        if self.discrete:
            return action + self.start if self._shifted else action
        clipped = np.clip(action, self.space.low, self.space.high)
        return clipped.astype(self.space.dtype, copy=False)

    @property
    def remembers(self) -> bool:
        """Whether the policy has a memory."""
        return not isinstance(self.native, _native.MlpPlan)

    def can_roll(self) -> bool:
        """Whether a whole rollout may run natively: observations and actions are the policy's as they are."""
        return self._plain and not self._shifted

    def rollout(
        self,
        env: NativePool,
        slab: RolloutArrays,
        start: NDArray[np.bool_],
        state: Tree,
        noise: Noise,
        *,
        epsilon: NDArray[np.float32] | None = None,
    ) -> float:
        """Fills the slab: act, sample, step and record, without leaving native code; `noise.steps` is counted up.

        Returns:
            The share of the time in which the rows stepped.
        """
        if self._slab is not slab:
            self._slab, self._slab_arrays = slab, _arrays_of(slab)
        return self._calls.rollout(
            env.pool,
            env.obs.reshape(len(start), -1),
            start.view(np.uint8),
            noise.steps,
            *memory_of(self.native, None, state),
            *self._slab_arrays,
            noise.seed,
            noise.stream,
            noise.rows,
            **_explored(epsilon),
        )

    def linked_rollout(
        self,
        linked: Linked,
        slab: RolloutArrays,
        start: NDArray[np.bool_],
        noise: Noise,
        *,
        epsilon: NDArray[np.float32] | None = None,
    ) -> _native.LinkedRollout:
        """What fills the slab as `rollout` does, of a policy without memory, with rows on servers."""
        assert isinstance(self.native, _native.MlpPlan)
        return _native.LinkedRollout(
            self.native,
            linked.servers(),
            slab.episode_info.shape[-1],
            [
                linked.obs.reshape(len(start), -1),
                start.view(np.uint8),
                noise.steps,
                *_arrays_of(slab),
            ],
            noise.seed,
            noise.stream,
            noise.rows,
            epsilon=epsilon,
        )


def _explored(epsilon: NDArray[np.float32] | None) -> dict[str, NDArray[np.float32]]:
    """The keyword of native calls that only a Q-network's have."""
    return {} if epsilon is None else {"epsilon": epsilon}


def _arrays_of(slab: RolloutArrays) -> list[NDArray[Any]]:
    """A slab's memory as native code takes it, in its order."""
    lead = slab.reward.shape
    return [
        slab.obs.reshape(*lead, -1),
        slab.start.view(np.uint8),
        slab.action.reshape(*lead, -1),
        slab.log_prob,
        slab.value,
        slab.next_value,
        slab.reward,
        slab.terminated.view(np.uint8),
        slab.truncated.view(np.uint8),
        slab.final_index,
        slab.final_obs.reshape(lead[0] * lead[1], -1),
        slab.episode_return,
        slab.episode_length,
        slab.episode_info,
    ]


def _flat(obs: NDArray[Any]) -> NDArray[np.float32]:
    rows = obs.reshape(len(obs), -1)
    if rows.dtype != np.float64:
        return np.ascontiguousarray(rows, np.float32)
    # What float32 cannot hold is refused by name when the rollout is whole.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, np.float32)
