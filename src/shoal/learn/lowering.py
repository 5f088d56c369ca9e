"""Lowering: a policy of shoal's own MLP layers as native code on its packed weights. Torch is the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from gymnasium import spaces

from shoal import _native
from shoal.learn.weights import packing
from shoal.nets.encoder import Encoder
from shoal.nets.heads import head_size
from shoal.nets.normaliser import CLIP
from shoal.nets.policy import MlpPolicy

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from shoal.envs.native import NativeEnv
    from shoal.types import Spec, Steps

MOST_LAYERS, MOST_ACTIONS = 15, 64
"""What the native plan has room for: hidden layers, parts of an action."""
STATS = (
    "loss/policy",
    "loss/value",
    "loss/entropy",
    "loss/approx_kl",
    "loss/clip_fraction",
    "loss/grad_norm",
)


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
    if head == "gaussian" and spec.masked:
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
        mask: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """Actions, log-probabilities and values of n observations, among the options that `mask` leaves."""
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
            mask=None if mask is None else np.ascontiguousarray(mask),
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
        env: NativeEnv,
        slab: RolloutArrays,
        start: NDArray[np.bool_],
        row_step: NDArray[np.int64],
        *,
        seed: int,
        stream: int,
        rows: NDArray[np.int64],
    ) -> None:
        """Fills the slab: act, sample, step and record, without leaving native code.

        The noise is that of (seed, stream, rows, row_step), as in `act`.
        """
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

    def samples(self, steps: Steps, **columns: Tensor) -> _native.Samples:
        """A rollout's T * B samples as the gradient steps take them, in the same memory.

        `columns` [T, B] are what a loss reads besides the log-probabilities and values of the steps. Also takes over
        the statistics of the version that acted, as the policy holds them until it is published.
        """
        self.refresh_normaliser()
        n = steps.reward.numel()
        columns = {"log_prob": steps.log_prob, "value": steps.value, **columns}
        mask = steps.action_mask
        return _native.Samples(
            steps.obs.numpy().reshape(n, -1).astype(np.float32, copy=False),
            steps.action.numpy().reshape(n, -1),
            {name: column.numpy().reshape(n) for name, column in columns.items()},
            mask=None if mask is None else mask.numpy().reshape(n, -1),
        )

    def adam(self, optimizer: torch.optim.Adam) -> _native.Adam:
        """The native optimizer on torch's own moments, as many steps on."""
        exp_avg, exp_avg_sq = self.moments(optimizer, "exp_avg", "exp_avg_sq")
        group = optimizer.param_groups[0]
        step = optimizer.state[group["params"][0]].get("step", 0)
        return _native.Adam(
            exp_avg,
            exp_avg_sq,
            learning_rate=group["lr"],
            betas=group["betas"],
            eps=group["eps"],
            step=int(step),
        )

    def rms_prop(self, optimizer: torch.optim.RMSprop) -> _native.RMSProp:
        """The native optimizer on torch's own moments."""
        (square_avg,) = self.moments(optimizer, "square_avg")
        group = optimizer.param_groups[0]
        return _native.RMSProp(
            square_avg,
            learning_rate=group["lr"],
            alpha=group["alpha"],
            eps=group["eps"],
        )

    def moments(
        self, optimizer: torch.optim.Optimizer, *names: str
    ) -> list[NDArray[np.float32]]:
        """Flat buffers of an optimizer's moments, in packed order, that torch's optimizer state shares."""
        flats: list[NDArray[np.float32]] = []
        parameters = packing(self.policy)
        for name in names:
            old = [
                optimizer.state[p].get(name, torch.zeros_like(p)) for p in parameters
            ]
            flat = torch.cat([x.detach().reshape(-1) for x in old])
            at = 0
            for p in parameters:
                optimizer.state[p][name] = flat[at : at + p.numel()].view_as(p)
                at += p.numel()
            flats.append(flat.numpy())
        return flats


def _flat(obs: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(obs.reshape(len(obs), -1), np.float32)
