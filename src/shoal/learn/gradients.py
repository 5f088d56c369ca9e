"""Gradients of a lowered policy: whole steps on fused losses, and outputs that a loss in torch goes back through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch

from shoal import _native
from shoal.learn.losses import ONE_STEP
from shoal.nets.encoder import Encoder, TreeEncoder, statistics_of
from shoal.nets.heads import head_size
from shoal.nets.normalizer import CLIP
from shoal.nets.policy import MlpPolicy, Output, RecurrentPolicy
from shoal.nets.q_network import QNetwork
from shoal.types import ConfigError, Transitions, map_tree

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from shoal.types import Bools, Steps, Tree

NativePlan: TypeAlias = "_native.MlpPlan | _native.RecurrentPlan"
Lowered: TypeAlias = MlpPolicy | RecurrentPolicy | QNetwork
"""The policies that native code can run."""


class FusedLoss(NamedTuple):
    """A loss that native code has fused: what it reads, takes and gives, by name."""

    name: str
    columns: list[str]
    settings: list[str]
    statistics: list[str]
    of_values: bool
    """Whether it is one of a Q-network."""


LOSSES = {
    name: FusedLoss(name, *parts) for name, parts in _native.fused_losses().items()
}
COLUMNS = sorted({column for loss in LOSSES.values() for column in loss.columns})


class Gradients:
    """What a lowered policy learns by, on the weights that it shares with torch."""

    def __init__(self, native: NativePlan, policy: Lowered) -> None:
        """Made by a `Plan`."""
        self.native, self.policy = native, policy
        self._calls: Any = native  # a recurrent plan reads sequences
        self.recurrent = isinstance(native, _native.RecurrentPlan)
        self.logits = head_size(policy.spec.action_space)
        self._samples: Any = None
        self._seen: Steps | Transitions | None = None
        self._obs_version = 0
        self.of_values = isinstance(policy, QNetwork)
        self._settings: dict[str, tuple[Any, dict[str, float]]] = {}
        self._stats = {
            name: np.zeros(len(loss.statistics) + 1) for name, loss in LOSSES.items()
        }

    def has_loss(self, name: str) -> bool:
        """Whether native code has this loss fused, for such a network."""
        return name in LOSSES and LOSSES[name].of_values == self.of_values

    def loss_step(
        self,
        name: str,
        steps: Steps | Transitions,
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
        self, steps: Steps | Transitions, index: NDArray[np.int32], weights: Tensor
    ) -> Output:
        """What the policy says of the chosen steps [1, M], rows [T, M] or transitions [M], for a loss in torch.

        Args:
            steps: a whole rollout, or transitions.
            index: which steps, or which rows of a recurrent policy.
            weights: a leaf over the packed weights; `backward` on the loss fills its gradient.
        """
        samples = self._samples_of(steps)
        lead = (steps.reward.shape[0], len(index)) if self.recurrent else (len(index),)
        run: Any = _Outputs.apply
        logits, value = run(weights, self, samples, index, lead)
        if self.of_values:
            value = logits.amax(-1)
        if not self.recurrent and not isinstance(steps, Transitions):
            logits, value = logits.unsqueeze(0), value.unsqueeze(0)
        distribution = self.policy.head(logits, self.policy.log_std)
        return Output(distribution, value, None)

    def _samples_of(
        self, steps: Steps | Transitions
    ) -> _native.Samples | _native.Sequences:
        """A rollout's arrays [T * B, ...] as native code takes them, in the same memory.

        What an algorithm changes in place is seen. A new rollout also brings the statistics of the version that acted,
        as the policy holds them until it is published; transitions, which come in the same arrays each time, may.
        """
        version = 0 if isinstance(steps, Transitions) else version_of(steps.obs)
        if version != self._obs_version:
            self._seen = None
        if self._seen is not steps or isinstance(steps, Transitions):
            refresh_normalizer(self.native, self.policy)
        if self._seen is not steps:
            self._samples, shared = self._read(steps)
            self._seen, self._obs_version = steps if shared else None, version
        return self._samples

    def _read(
        self, steps: Steps | Transitions
    ) -> tuple[_native.Samples | _native.Sequences, bool]:
        """The arrays, and whether they may be learned from again: they are the rollout's own memory.

        Observations of a rollout may be a copy, as it is seen where torch writes to them.
        """
        count = steps.reward.numel()
        wanted = {"action": steps.action.dtype}
        wanted |= dict.fromkeys(COLUMNS, torch.float32)
        wanted["action_mask"] = torch.bool
        arrays: dict[str, NDArray[Any]] = {}
        obs, own = self._observed(steps.obs)
        shared = own or not isinstance(steps, Transitions)
        for name, dtype in wanted.items():
            values: Tensor | None = getattr(steps, name, None)
            if values is not None:
                plain = values.detach().to(dtype).contiguous()
                shared &= plain.data_ptr() == values.data_ptr()
                arrays[name] = plain.numpy()
        samples = _native.Samples(
            obs.reshape(count, -1),
            arrays["action"].reshape(count, -1),
            {name: arrays[name].reshape(-1) for name in COLUMNS if name in arrays},
            mask=arrays["action_mask"].reshape(count, -1)
            if "action_mask" in arrays
            else None,
            error=steps.error.numpy() if isinstance(steps, Transitions) else None,
        )
        if not self.recurrent or isinstance(steps, Transitions):
            return samples, shared
        start, *memory = memory_of(self.native, steps.start.numpy(), steps.state)
        sequences = _native.Sequences(
            samples, start, *memory, valid=steps.valid.numpy()
        )
        return sequences, shared

    def _observed(self, obs: Tree) -> tuple[NDArray[Any], bool]:
        """What the first layer reads of observations, and whether it is their own memory."""
        if not reads_as_it_is(self.policy.encoder):
            return flattened(self.policy, obs).numpy(), False
        plain = obs.detach().to(torch.float32).contiguous()
        return plain.numpy(), plain.data_ptr() == obs.data_ptr()

    def _settings_of(self, loss: FusedLoss, cfg: Any) -> dict[str, float]:
        """The settings that a loss takes, as numbers."""
        known = self._settings.get(loss.name)
        if known is None or known[0] is not cfg:
            numbers = {name: float(getattr(cfg, name)) for name in loss.settings}
            known = self._settings[loss.name] = (cfg, numbers)
        return known[1]


class _Outputs(torch.autograd.Function):
    """Logits and values from native code, and the weights' gradient from theirs."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        plan: Gradients,
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


def refresh_normalizer(native: NativePlan, policy: Lowered) -> None:
    """Gives native code the policy's frozen statistics."""
    encoder = policy.encoder
    assert isinstance(encoder, Encoder | TreeEncoder)
    found = statistics_of(encoder)
    if found is not None:
        mean, inv_std = found
        native.set_normalizer(mean.numpy(), inv_std.numpy(), CLIP)


def reads_as_it_is(encoder: nn.Module) -> bool:
    """Whether the first layer reads the numbers of one array as they are, but for their normalization."""
    return isinstance(encoder, Encoder) and not encoder.nvec and not encoder.image


def flattened(policy: Lowered, obs: Tree) -> Tensor:
    """Observations, a tree of tensors [..., *shape], as the vectors [..., N] that normalization begins with."""
    encoder = policy.encoder
    assert isinstance(encoder, TreeEncoder)
    return encoder.flatten(obs).contiguous()


def version_of(obs: Tree) -> int:
    """How often torch has written to a tree's tensors, all together."""
    written = 0

    def count(leaf: Tree) -> None:
        nonlocal written
        written += leaf._version

    map_tree(count, obs)
    return written


def memory_of(native: NativePlan, start: Bools | None, state: Tree) -> list[Any]:
    """A recurrent policy's start flags and memory as native code takes them; nothing for others."""
    if not isinstance(native, _native.RecurrentPlan):
        return []
    parts = state if isinstance(state, tuple) else (state, None)
    memory = [None if part is None else part.numpy() for part in parts]
    return memory if start is None else [start, *memory]
