"""Plan: a policy lowered to native code, which acts, collects whole rollouts and computes gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from gymnasium import spaces

from shoal import _native
from shoal.learn.losses import ONE_STEP
from shoal.nets.heads import head_size
from shoal.nets.normalizer import CLIP
from shoal.nets.policy import Output
from shoal.types import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from shoal.envs.vec_env import NativePool
    from shoal.nets.policy import MlpPolicy, RecurrentPolicy
    from shoal.types import Bools, Spec, Steps, Tree


class FusedLoss(NamedTuple):
    """A loss that native code has fused: what it reads, takes and gives, by name."""

    name: str
    columns: list[str]
    settings: list[str]
    statistics: list[str]


LOSSES = {
    name: FusedLoss(name, *parts) for name, parts in _native.fused_losses().items()
}
COLUMNS = sorted({column for loss in LOSSES.values() for column in loss.columns})


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
        policy: MlpPolicy | RecurrentPolicy,
        spec: Spec,
        flat: Tensor,
    ) -> None:
        """Made by `lower`."""
        self.native, self.policy, self.flat = native, policy, flat
        self._calls: Any = (
            native  # its arguments differ by the memory of a recurrent policy
        )
        self.recurrent = isinstance(native, _native.RecurrentPlan)
        self.space: Any = spec.action_space
        self.discrete = not isinstance(self.space, spaces.Box)
        self.action_shape = spec.action.single.shape
        self.action_size = int(np.prod(self.action_shape))
        self.start = self.space.start if self.discrete else 0
        self.logits = head_size(spec.action_space)
        self._samples: Any = None
        self._seen: Steps | None = None
        self._settings: dict[str, tuple[Any, dict[str, float]]] = {}
        self._stats = {
            name: np.zeros(len(loss.statistics) + 1) for name, loss in LOSSES.items()
        }
        self.refresh_normalizer()
        if not self.discrete:
            low = np.asarray(self.space.low, np.float32)
            high = np.asarray(self.space.high, np.float32)
            native.set_action_bounds(low, high)

    def refresh_normalizer(self) -> None:
        """Takes over the policy's frozen statistics."""
        layer: Any = self.policy.encoder.normalizer
        if layer is not None:
            self.native.set_normaliser(layer.mean.numpy(), layer.inv_std.numpy(), CLIP)

    def act(
        self,
        obs: NDArray[Any],
        start: Bools,
        state: Tree,
        noise: Noise,
        *,
        greedy: bool,
        action_mask: Bools | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """Actions, log-probabilities and values of n observations; `state` [n, H] advances in place."""
        n = len(noise.rows)
        kind = np.int64 if self.discrete else np.float32
        action = np.empty((n, self.action_size), kind)
        log_prob, value = np.empty(n, np.float32), np.empty(n, np.float32)
        self._calls.act(
            _flat(obs),
            *self._memory(start, state),
            *noise,
            greedy,
            action,
            log_prob,
            value,
            mask=action_mask,
        )
        return action.reshape(n, *self.action_shape), log_prob, value

    def value(
        self, obs: NDArray[Any], start: Bools, state: Tree
    ) -> NDArray[np.float32]:
        """Values of n observations; nothing advances."""
        value = np.empty(len(obs), np.float32)
        logits = np.empty((len(obs), self.logits), np.float32)
        self._calls.forward(_flat(obs), *self._memory(start, state), logits, value)
        return value

    def to_env(self, action: NDArray[Any]) -> NDArray[Any]:
        """The action as the environment takes it."""
        if self.discrete:
            return action + self.start if np.any(self.start) else action
        clipped = np.clip(action, self.space.low, self.space.high)
        return clipped.astype(self.space.dtype, copy=False)

    def can_roll(self) -> bool:
        """Whether a whole rollout may run natively: the environment's actions are the policy's."""
        return not np.any(self.start)

    def rollout(
        self,
        env: NativePool,
        slab: RolloutArrays,
        start: NDArray[np.bool_],
        state: Tree,
        row_step: NDArray[np.int64],
        *,
        rows: NDArray[np.int64],
        seed: int,
        stream: int,
    ) -> None:
        """Fills the slab: act, sample, step and record, without leaving native code."""
        lead = slab.reward.shape
        self._calls.rollout(
            env.pool,
            env.obs.reshape(lead[1], -1),
            start.view(np.uint8),
            row_step,
            *self._memory(None, state),
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
            seed,
            stream,
            rows,
        )

    def has_loss(self, name: str) -> bool:
        """Whether native code has this loss fused."""
        return name in LOSSES

    def loss_step(
        self,
        name: str,
        steps: Steps,
        index: NDArray[np.int32],
        cfg: Any,
        optimizer: _native.Optimizer,
        max_grad_norm: float,
    ) -> list[float]:
        """One gradient step on a fused loss over `index` of a rollout, in place on the weights.

        Returns:
            The loss's statistics, then the gradient's norm; where that is not finite, nothing has changed.
        """
        samples = self._samples_of(steps)
        settings = self._settings_of(LOSSES[name], cfg)
        out = self._stats[name]
        if settings.get("norm_adv") and index.size < 2 and not self.recurrent:
            raise ConfigError(ONE_STEP)
        self._calls.loss_step(
            name, samples, index, settings, optimizer, max_grad_norm, out
        )
        return out.tolist()

    def outputs(
        self, steps: Steps, index: NDArray[np.int32], weights: Tensor
    ) -> Output:
        """What the policy says of the chosen steps [1, M] or rows [T, M], for a loss in torch.

        Args:
            steps: a whole rollout.
            index: which steps, or which rows of a recurrent policy.
            weights: a leaf over the packed weights; `backward` on the loss fills its gradient.
        """
        samples = self._samples_of(steps)
        lead = (steps.reward.shape[0], len(index)) if self.recurrent else (len(index),)
        run: Any = _Outputs.apply
        logits, value = run(weights, self, samples, index, lead)
        if not self.recurrent:
            logits, value = logits.unsqueeze(0), value.unsqueeze(0)
        distribution = self.policy.head(logits, self.policy.log_std)
        return Output(distribution, value, None)

    def _samples_of(self, steps: Steps) -> _native.Samples | _native.Sequences:
        """A rollout's arrays [T * B, ...] as native code takes them, in the same memory.

        A new rollout also brings the statistics of the version that acted, as the policy holds them until it is
        published.
        """
        if self._seen is not steps:
            self.refresh_normalizer()
            self._samples = self._read(steps)
            self._seen = steps
        return self._samples

    def _read(self, steps: Steps) -> _native.Samples | _native.Sequences:
        columns: dict[str, NDArray[np.float32]] = {}
        for name in COLUMNS:
            values: Tensor | None = getattr(steps, name, None)
            if values is not None:
                columns[name] = values.numpy().reshape(-1)
        count = steps.reward.numel()
        mask = steps.action_mask
        samples = _native.Samples(
            np.ascontiguousarray(steps.obs.numpy().reshape(count, -1), np.float32),
            steps.action.numpy().reshape(count, -1),
            columns,
            mask=None if mask is None else mask.numpy().reshape(count, -1),
        )
        if not self.recurrent:
            return samples
        start, *memory = self._memory(steps.start.numpy(), steps.state)
        return _native.Sequences(samples, start, *memory, valid=steps.valid.numpy())

    def _settings_of(self, loss: FusedLoss, cfg: Any) -> dict[str, float]:
        """The settings that a loss takes, as numbers."""
        known = self._settings.get(loss.name)
        if known is None or known[0] is not cfg:
            numbers = {name: float(getattr(cfg, name)) for name in loss.settings}
            known = self._settings[loss.name] = (cfg, numbers)
        return known[1]

    def _memory(self, start: Bools | None, state: Tree) -> list[Any]:
        """A recurrent policy's start flags and memory as native code takes them; nothing for others."""
        if not self.recurrent:
            return []
        parts = state if isinstance(state, tuple) else (state, None)
        memory = [None if part is None else part.numpy() for part in parts]
        return memory if start is None else [start, *memory]


class _Outputs(torch.autograd.Function):
    """Logits and values from native code, and the weights' gradient from theirs."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        plan: Plan,
        samples: Any,
        index: NDArray[np.int32],
        lead: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        """Logits [*lead, A] and values [*lead]; native code keeps what `backward` needs."""
        logits, value = torch.empty(*lead, plan.logits), torch.empty(lead)
        plan.native.forward_train(samples, index, logits.numpy(), value.numpy())
        ctx.native, ctx.size = plan.native, weights.numel()
        return logits, value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The packed weights' gradient."""
        logits, value = (x.contiguous().numpy() for x in gradients)
        gradient = torch.empty(ctx.size)
        ctx.native.backward(logits, value, gradient.numpy())
        return gradient, None, None, None, None


def _flat(obs: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(obs.reshape(len(obs), -1), np.float32)
