"""Lowering: a policy of shoal's own layers as native code on its packed weights. Torch is the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from shoal import _native
from shoal.learn.gradients import Lowered, reads_as_it_is
from shoal.learn.plan import Plan
from shoal.nets.encoder import TreeEncoder
from shoal.nets.policy import MlpPolicy, RecurrentPolicy
from shoal.nets.q_network import QNetwork

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.nets.network import Network
    from shoal.types import Spec

MOST_LAYERS, MOST_ACTIONS = 15, 64
"""What a native plan has room for: hidden layers, parts of an action."""


class Head(NamedTuple):
    """How native code calls a distribution over actions."""

    kind: str
    sizes: list[int]
    """Options of each choice, or a Gaussian's number of dimensions."""
    parts: int
    """Numbers in one action."""


def lower(
    policy: nn.Module,
    spec: Spec,
    flat: Tensor,
    *,
    num_threads: int,
    act_block: int,
    grad_shards: int,
    shared: bool = False,
) -> Plan | None:
    """The native plan of a policy whose packed weights are `flat`, or None where only torch can run it.

    Lowered are perceptrons and recurrent policies on the CPU with Box or nested observations and categorical,
    multi-categorical or plain Gaussian heads, and Q-networks without dueling.

    Args:
        policy: shares `flat` with the plan.
        spec: what rows observe and do.
        flat: float32, in the order of `weights.packing`.
        num_threads: changes no bit.
        act_block: rows in one forward.
        grad_shards: parts of a minibatch.
        shared: whether it shares threads and the memory of gradients with others that do, and waits for their calls.
    """
    if type(policy) not in (MlpPolicy, RecurrentPolicy, QNetwork):
        return None
    assert isinstance(policy, MlpPolicy | RecurrentPolicy | QNetwork)
    encoder, network = policy.encoder, policy.network
    head = _head_of(policy, spec)
    if head is None or not _is_as_made(policy):
        return None
    if flat.device.type != "cpu" or flat.dtype is not torch.float32:
        return None
    if len(network.hidden) > MOST_LAYERS or head.parts > MOST_ACTIONS:
        return None
    sizes = num_threads, act_block, grad_shards
    if not isinstance(policy, RecurrentPolicy):
        native = _native.MlpPlan(
            flat.numpy(),
            encoder.size,
            list(network.hidden),
            head.kind,
            head.sizes,
            network.activation,
            *sizes,
            shared=shared,
        )
        return Plan(native, policy, spec, flat)
    recurrent = _native.RecurrentPlan(
        flat.numpy(),
        encoder.size,
        list(network.hidden),
        policy.network.recurrent,
        policy.network.recurrent_size,
        head.kind,
        head.sizes,
        network.activation,
        *sizes,
    )
    return Plan(recurrent, policy, spec, flat)


def _head_of(policy: Lowered, spec: Spec) -> Head | None:
    """What native code calls the policy's outputs; None where it does not have them."""
    if not isinstance(policy, QNetwork):
        return _head(spec, policy.network)
    network = policy.network
    if network.layer_norm or network.dueling or network.noisy or network.quantiles:
        return None
    return Head("q_values", [policy.actions], 1)


def _is_as_made(policy: Lowered) -> bool:
    """Whether vectors go through towers that still have the layers that shoal gave them, and nothing hangs on them."""
    if not _is_flat(policy.encoder):
        return False
    name = policy.network.activation
    kind = nn.Tanh if name == "tanh" else nn.ReLU
    if isinstance(policy, QNetwork):
        towers = [policy.q]
    else:
        towers = [policy.actor, policy.critic]
    if isinstance(policy, RecurrentPolicy):
        towers.append(policy.body)
    layers = [layer for tower in towers for layer in tower]
    if any(type(layer) not in (nn.Linear, kind) for layer in layers):
        return False
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    return not any(vars(m)[name] for m in policy.modules() for name in hooks)


def _is_flat(encoder: nn.Module) -> bool:
    """Whether the first layer reads one array as it is, or a tree's arrays side by side, normalized or not."""
    if isinstance(encoder, TreeEncoder):
        return encoder.flattens
    return reads_as_it_is(encoder)


def _head(spec: Spec, network: Network) -> Head | None:
    """The distribution that a network gives; None for one that native code does not have."""
    if network.squash or network.sde_interval:
        return None
    space = spec.action_space
    if isinstance(space, spaces.Discrete):
        return Head("categorical", [int(space.n)], 1)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        options = [int(n) for n in np.asarray(space.nvec)]
        return Head("categorical", options, len(options))
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return Head("gaussian", [space.shape[0]], space.shape[0])
    return None
