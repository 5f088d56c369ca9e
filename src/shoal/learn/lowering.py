"""Lowering: a policy of shoal's own MLP layers as native code on its packed weights. Torch is the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces

from shoal import _native
from shoal.nets.encoder import Encoder
from shoal.nets.heads import head_size
from shoal.nets.normaliser import CLIP
from shoal.nets.policy import MlpPolicy

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from shoal.envs.vec_env import NativePool
    from shoal.types import Bools, Spec, Steps

MOST_LAYERS, MOST_ACTIONS = 15, 64
"""What the native plan has room for: hidden layers, parts of an action."""


class FusedLoss(NamedTuple):
    """A loss that native code has fused: what it reads, takes and gives, by name."""

    name: str
    columns: list[str]
    settings: list[str]
    statistics: list[str]


LOSSES = {
    name: FusedLoss(name, *declared)
    for name, declared in _native.fused_losses().items()
}
COLUMNS = sorted({column for loss in LOSSES.values() for column in loss.columns})


def lower(policy: nn.Module, spec: Spec, flat: Tensor, **settings: Any) -> Plan | None:
    """The native plan of a policy whose packed weights are `flat`, or None where only torch can run it.

    Lowered are MlpPolicies on the CPU with Box observations and categorical, multi-categorical or plain Gaussian heads.
    `settings`: num_threads (changes no bit), act_block, grad_shards.
    """
    if type(policy) is not MlpPolicy or policy.network.squash:
        return None
    encoder = policy.encoder
    if not isinstance(encoder, Encoder) or encoder.nvec or encoder.image:
        return None
    if (
        flat.device.type != "cpu"
        or flat.dtype.is_floating_point is False
        or flat.element_size() != 4
    ):
        return None
    space: Any = spec.action_space
    match space:
        case spaces.Discrete():
            head, nvec = "categorical", [int(space.n)]
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            head, nvec = "categorical", [int(n) for n in space.nvec]
        case spaces.Box() if len(space.shape) == 1:
            head, nvec = "gaussian", [space.shape[0]]
        case _:
            return None
    hidden = list(policy.network.hidden)
    if (
        len(hidden) > MOST_LAYERS
        or (len(nvec) if head == "categorical" else nvec[0]) > MOST_ACTIONS
    ):
        return None
    native = _native.MlpPlan(
        flat.numpy(),
        policy.encoder.size,
        hidden,
        head,
        nvec,
        policy.network.activation,
        **settings,
    )
    return Plan(native, policy, spec)


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


class Plan:
    """A lowered policy: forward, acting, whole rollouts, and gradient steps on the shared weights."""

    def __init__(self, native: _native.MlpPlan, policy: MlpPolicy, spec: Spec) -> None:
        """Made by `lower`."""
        self.native, self.policy = native, policy
        self.space: Any = spec.action_space
        self.discrete = not isinstance(self.space, spaces.Box)
        self.action_shape = spec.action.single.shape
        self.action_size = int(np.prod(self.action_shape))
        self.start = self.space.start if self.discrete else 0
        self.logits = head_size(spec.action_space)
        self._seen: Steps | None = None
        self._samples: _native.Samples | None = None
        self._settings: dict[str, tuple[Any, dict[str, float]]] = {}
        self._stats = {
            name: np.zeros(len(loss.statistics) + 1) for name, loss in LOSSES.items()
        }
        self.refresh_normaliser()
        if not self.discrete:
            native.set_action_bounds(
                *(np.asarray(x, np.float32) for x in (self.space.low, self.space.high))
            )

    def refresh_normaliser(self) -> None:
        """Takes over the policy's frozen statistics."""
        layer = self.policy.encoder.normaliser
        if layer is not None:
            self.native.set_normaliser(layer.mean.numpy(), layer.inv_std.numpy(), CLIP)

    def act(
        self,
        obs: NDArray[Any],
        seed: int,
        stream: int,
        rows: NDArray[Any],
        steps: NDArray[Any],
        *,
        greedy: bool,
        action_mask: Bools | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """Actions, log-probabilities and values of n observations."""
        n = len(rows)
        action = np.empty(
            (n, self.action_size), np.int64 if self.discrete else np.float32
        )
        log_prob, value = np.empty(n, np.float32), np.empty(n, np.float32)
        self.native.act(
            _flat(obs),
            seed,
            stream,
            rows,
            steps,
            greedy,
            action,
            log_prob,
            value,
            mask=action_mask,
        )
        return action.reshape(n, *self.action_shape), log_prob, value

    def value(self, obs: NDArray[Any]) -> NDArray[np.float32]:
        """Values of n observations."""
        value = np.empty(len(obs), np.float32)
        self.native.forward(
            _flat(obs), np.empty((len(obs), self.logits), np.float32), value
        )
        return value

    def to_env(self, action: NDArray[Any]) -> NDArray[Any]:
        """The action as the environment takes it."""
        if self.discrete:
            return action + self.start if np.any(self.start) else action
        return np.clip(action, self.space.low, self.space.high).astype(
            self.space.dtype, copy=False
        )

    def can_roll(self) -> bool:
        """Whether a whole rollout may run natively: the environment's actions are the policy's."""
        return not np.any(self.start)

    def rollout(
        self,
        env: NativePool,
        slab: RolloutArrays,
        start: NDArray[np.bool_],
        row_step: NDArray[np.int64],
        *,
        rows: NDArray[np.int64],
        seed: int,
        stream: int,
    ) -> None:
        """Fills the slab: act, sample, step and record, without leaving native code."""
        lead = slab.reward.shape
        self.native.rollout(
            env.pool,
            env.obs.reshape(lead[1], -1),
            start.view(np.uint8),
            row_step,
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
        loss = LOSSES[name]
        samples = self._samples_of(steps)
        settings = self._settings_of(loss, cfg)
        out = self._stats[name]
        self.native.loss_step(
            name, samples, index, settings, optimizer, max_grad_norm, out
        )
        return out.tolist()

    def _samples_of(self, steps: Steps) -> _native.Samples:
        """A rollout's arrays [T * B, ...] as native code takes them, in the same memory.

        A new rollout also brings the statistics of the version that acted, as the policy holds them until it is
        published.
        """
        if self._seen is not steps:
            self.refresh_normaliser()
            columns = {name: _column(steps, name) for name in COLUMNS}
            given = {
                name: array for name, array in columns.items() if array is not None
            }
            action = steps.action.numpy().reshape(steps.reward.numel(), -1)
            mask = steps.action_mask
            self._samples = _native.Samples(
                _flat_steps(steps.obs.numpy()),
                action,
                given,
                mask=None if mask is None else mask.numpy().reshape(len(action), -1),
            )
            self._seen = steps
        assert self._samples is not None
        return self._samples

    def _settings_of(self, loss: FusedLoss, cfg: Any) -> dict[str, float]:
        """The settings that a loss takes, as numbers."""
        known = self._settings.get(loss.name)
        if known is None or known[0] is not cfg:
            numbers = {name: float(getattr(cfg, name)) for name in loss.settings}
            known = self._settings[loss.name] = (cfg, numbers)
        return known[1]


def _column(steps: Steps, name: str) -> NDArray[np.float32] | None:
    values = getattr(steps, name, None)
    return None if values is None else values.numpy().reshape(-1)


def _flat_steps(obs: NDArray[Any]) -> NDArray[np.float32]:
    """Observations [T, B, ...] as [T * B, D]."""
    steps = obs.shape[0] * obs.shape[1]
    return np.ascontiguousarray(obs.reshape(steps, -1), np.float32)


def _flat(obs: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(obs.reshape(len(obs), -1), np.float32)
