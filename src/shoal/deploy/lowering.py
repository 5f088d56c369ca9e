"""Lowering: the program of a policy of shoal's own layers; a policy of other modules has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from shoal.deploy.arrays import array
from shoal.deploy.image_layers import image_reading
from shoal.deploy.program import (
    Activation,
    Choices,
    Choose,
    Dense,
    Layer,
    Memory,
    Move,
    Norm,
    Numbers,
    Program,
    Standardize,
)
from shoal.nets.actors import DeterministicActor, StochasticActor
from shoal.nets.encoder import Encoder, TreeEncoder
from shoal.nets.images import ImageEncoder
from shoal.nets.layers import Tower
from shoal.nets.noisy import NoisyLinear
from shoal.nets.policy import MlpPolicy, RecurrentPolicy, SharedPolicy
from shoal.nets.q_network import QNetwork, RecurrentQNetwork
from shoal.types import ConfigError, choices, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from shoal.deploy.program import HeadPart, Reading
    from shoal.envs.action_guard.limits import Limits
    from shoal.nets.normalizer import Normalizer
    from shoal.types import Leaf, Spec

KINDS = (
    MlpPolicy,
    SharedPolicy,
    RecurrentPolicy,
    QNetwork,
    RecurrentQNetwork,
    StochasticActor,
    DeterministicActor,
)
SUPPORTED = (
    "C source is written of shoal's own networks (perceptrons, GRU, LSTM, image layers; policies, Q-networks, actors "
    "of continuous control)"
)
INSTEAD = "export to onnx or torchscript instead, which take any module"


class Parts(NamedTuple):
    """The layers of a policy in the order that they are run."""

    body: tuple[Layer, ...]
    memory: Memory | None
    actor: tuple[Layer, ...]
    state_value: tuple[Layer, ...] = ()
    quantiles: int = 1


def program_of(policy: nn.Module, spec: Spec, limits: Limits | None = None) -> Program:
    """The program that gives a policy's actions, within the `limits` of an action guard.

    Raises:
        ConfigError: modules that are not shoal's own, or that were changed; half precision; float16 observations.
    """
    if type(policy) not in KINDS:
        inner = getattr(policy, "module", policy)
        name = type(inner if isinstance(inner, nn.Module) else policy).__name__
        raise ConfigError(
            f"{spec.env_id}: the policy is a module of your own ({name}); {SUPPORTED}; {INSTEAD}"
        )
    _check_untouched(policy, spec)
    readings = tuple(_readings(policy, spec))
    if isinstance(policy, QNetwork):
        parts = _q_parts(policy)
    else:
        parts = _policy_parts(policy)
    return Program(
        readings,
        *parts,
        head=tuple(_head(policy, spec)),
        draws=_draws(policy),
        limits=limits,
    )


def _check_untouched(policy: nn.Module, spec: Spec) -> None:
    """ConfigError where hooks hang on modules, or a layer is in another precision."""
    for module in policy.modules():
        names = ("_forward_hooks", "_forward_pre_hooks", "_parametrizations")
        if any(vars(module).get(name) for name in names):
            raise ConfigError(
                f"{spec.env_id}: a hook hangs on the policy's {type(module).__name__}; {SUPPORTED}, "
                f"as they are made; {INSTEAD}"
            )
        if isinstance(module, ImageEncoder) and module.halved:
            raise ConfigError(
                f"{spec.env_id}: network.precision is bfloat16, and C source computes in float32, which may choose "
                f"other actions; {INSTEAD}, or train with --network.precision float32"
            )


def _readings(policy: nn.Module, spec: Spec) -> list[Reading]:
    """One for each leaf of what is observed."""
    encoder = policy.encoder
    parts = list(encoder.leaves) if isinstance(encoder, TreeEncoder) else [encoder]
    made: list[Reading] = []
    for leaf, part in zip(spec.observation.leaves, parts, strict=True):
        if leaf.dtype == np.float16:
            raise ConfigError(
                f"{spec.env_id}: the observation{leaf.name} is float16, which C99 lacks; {INSTEAD}"
            )
        if isinstance(part, ImageEncoder):
            made.append(image_reading(part, leaf))
        else:
            assert isinstance(part, Encoder)
            made.append(_reading(part, leaf))
    return made


def _reading(encoder: Encoder, leaf: Leaf) -> Reading:
    if encoder.nvec:
        first = tuple(int(x) for x in encoder.first)
        return Choices(leaf, tuple(encoder.nvec), first)
    divisor = 255.0 if encoder.image else 1.0
    return Numbers(leaf, encoder.size, divisor, _standardize(encoder.normalizer))


def _standardize(normalizer: Normalizer | None) -> Standardize | None:
    if normalizer is None:
        return None
    return Standardize(
        array(normalizer.mean), array(normalizer.inv_std), normalizer.clip
    )


def _policy_parts(policy: nn.Module) -> Parts:
    """Those of policies and actors."""
    match policy:
        case MlpPolicy():
            return Parts((), None, layers_of(policy.actor))
        case SharedPolicy():
            return Parts(layers_of(policy.body), None, layers_of(policy.actor))
        case RecurrentPolicy():
            memory = _memory(policy.cell)
            return Parts(layers_of(policy.body), memory, layers_of(policy.actor))
        case StochasticActor():
            return Parts((), None, layers_of(policy.body))
        case _:
            assert isinstance(policy, DeterministicActor)
            return Parts((), None, layers_of(policy.body))


def _q_parts(policy: QNetwork) -> Parts:
    """Those of Q-networks; of noisy layers the mean weights, which choose greedily."""
    body: tuple[Layer, ...] = ()
    memory = None
    if isinstance(policy, RecurrentQNetwork):
        body, memory = layers_of(policy.trunk), _memory(policy.cell)
    quantiles = max(1, policy.network.quantiles)
    if not policy.network.dueling:
        return Parts(body, memory, layers_of(policy.q), (), quantiles)
    hidden = layers_of(policy.body)
    return Parts(
        body,
        memory,
        (*hidden, *layers_of(policy.advantage)),
        (*hidden, *layers_of(policy.state_value)),
        quantiles,
    )


def layers_of(modules: Iterable[nn.Module]) -> tuple[Layer, ...]:
    """Dense layers and what stands between them.

    Raises:
        ConfigError: a module that has no such form.
    """
    made: list[Layer] = []
    for module in modules:
        match module:
            case nn.Linear() | NoisyLinear():
                made.append(Dense(array(module.weight.T), array(module.bias)))
            case nn.Tanh():
                made.append(Activation("tanh"))
            case nn.ReLU():
                made.append(Activation("relu"))
            case nn.LayerNorm():
                weight, bias = array(module.weight), array(module.bias)
                made.append(Norm(weight, bias, module.eps))
            case Tower() | nn.Sequential():
                made += layers_of(module)
            case _:
                raise ConfigError(
                    f"the policy holds a {type(module).__name__}; {SUPPORTED}; {INSTEAD}"
                )
    return tuple(made)


def _memory(cell: nn.GRUCell | nn.LSTMCell) -> Memory:
    kind: Literal["gru", "lstm"] = "lstm" if isinstance(cell, nn.LSTMCell) else "gru"
    return Memory(
        kind,
        cell.hidden_size,
        array(cell.weight_ih.T),
        array(cell.weight_hh.T),
        array(cell.bias_ih),
        array(cell.bias_hh),
    )


def _head(policy: nn.Module, spec: Spec) -> list[HeadPart]:
    """One part for each leaf of an action."""
    parts: list[HeadPart] = []
    at = 0
    pairs = zip(spec.action.leaves, leaf_spaces(spec.action_space), strict=True)
    for leaf, (_, space) in pairs:
        if isinstance(space, spaces.Box):
            move = _move(policy, leaf, space, at)
            at += move.size
            parts.append(move)
        else:
            options = tuple(choices(space))
            start = getattr(space, "start", np.zeros(len(options), np.int64))
            first = tuple(int(x) for x in np.asarray(start).ravel())
            parts.append(Choose(leaf, options, first))
    return parts


def _move(policy: nn.Module, leaf: Leaf, space: spaces.Box, at: int) -> Move:
    """The part of a Box whose log standard deviations begin at `at`."""
    low, high = (_as_floats(bound) for bound in (space.low, space.high))
    if isinstance(policy, DeterministicActor):
        return Move(leaf, low, high, squash=True, log_std="none")
    if isinstance(policy, StochasticActor):
        return Move(leaf, low, high, squash=True, log_std="network")
    assert isinstance(policy, MlpPolicy | SharedPolicy | RecurrentPolicy)
    squash, log_std = policy.network.squash, policy.log_std
    assert isinstance(log_std, torch.Tensor)
    if policy.network.sde_interval:
        return Move(leaf, low, high, squash=squash, log_std="none")
    own = array(log_std)[at : at + len(low)]
    return Move(leaf, low, high, squash=squash, log_std=own)


def _draws(policy: nn.Module) -> bool:
    """Whether actions are drawn by noise that does not depend on what is observed."""
    if isinstance(policy, QNetwork | DeterministicActor):
        return False
    sde: int = getattr(policy.network, "sde_interval", 0)
    return not sde


def _as_floats(bound: NDArray[Any]) -> NDArray[np.floating]:
    """Bounds as flat numbers of their type; those of integers are no policy's."""
    return bound.ravel()
