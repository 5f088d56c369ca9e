"""Policies of every head and kind of network, with random weights that spread their actions."""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from shoal.nets.actors import make_deterministic, make_stochastic
from shoal.nets.network import ActorCriticNet, Network, QNet
from shoal.nets.normalizer import Normalizer, PixelNormalizer
from shoal.nets.policy import make_policy
from shoal.nets.q_network import make_q_network
from shoal.types import Spec

FLAT = spaces.Box(-np.inf, np.inf, (6,), np.float32)
BOX = spaces.Box(np.array([-2.0, -1.0, 0.0], np.float32), np.array([2.0, 1.0, 0.5], np.float32))
WIDE = spaces.Box(-1.0, 1.0, (2,), np.float64)
DICT = spaces.Dict(
    {
        "hand": spaces.Box(-1, 1, (2, 2), np.float32),
        "mode": spaces.Discrete(3, start=1),
        "keys": spaces.MultiDiscrete([2, 3]),
        "lamps": spaces.MultiBinary(3),
    }
)
BOTH = spaces.Dict(
    {"turn": spaces.Box(-1, 1, (2,), np.float32), "pick": spaces.Discrete(3), "on": spaces.MultiBinary(2)}
)


def image(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


@dataclass(frozen=True)
class Case:
    """A policy, and the spaces around it."""

    action: spaces.Space
    network: Network | QNet | ActorCriticNet = field(default_factory=Network)
    observation: spaces.Space = field(default_factory=lambda: FLAT)
    deterministic: bool = False

    def make(self) -> tuple[Any, Spec]:
        spec = Spec.of("Case-v0", self.observation, self.action)
        if isinstance(self.network, QNet):
            policy: Any = make_q_network(spec, self.network, 1)
        elif isinstance(self.network, ActorCriticNet):
            make = make_deterministic if self.deterministic else make_stochastic
            policy = make(spec, self.network, 1)
        else:
            policy = make_policy(spec, self.network, 1)
        return spread(policy), spec


FLAGS = spaces.Box(0, 1, (10, 10, 4), cast("Any", np.bool_))
CASES = {
    "categorical": Case(spaces.Discrete(4, start=2)),
    "multi-discrete": Case(spaces.MultiDiscrete([3, 4, 2])),
    "multi-binary": Case(spaces.MultiBinary((2, 2))),
    "gaussian": Case(BOX),
    "gaussian-float64": Case(WIDE),
    "squashed-gaussian": Case(BOX, Network(squash=True, activation="relu")),
    "joint": Case(BOTH, Network(hidden=(16,)), DICT),
    "shared": Case(spaces.Discrete(4), Network(share=True)),
    "normalized": Case(BOX, Network(normalize_obs=True)),
    "gru": Case(spaces.Discrete(4), Network(recurrent="gru", recurrent_size=20)),
    "lstm": Case(BOX, Network(recurrent="lstm", recurrent_size=20)),
    "gsde": Case(BOX, Network(sde_interval=4)),
    "q": Case(spaces.Discrete(4), QNet(hidden=(32, 32))),
    "q-dueling": Case(spaces.Discrete(4, start=1), QNet(hidden=(32, 32), dueling=True, layer_norm=True)),
    "q-dueling-quantiles": Case(spaces.Discrete(4), QNet(hidden=(32,), dueling=True, quantiles=8, noisy=True)),
    "q-gru": Case(spaces.Discrete(4), QNet(hidden=(32,), recurrent="gru", recurrent_size=16, normalize_obs=True)),
    "sac": Case(BOX, ActorCriticNet(hidden=(32, 32))),
    "sac-discrete": Case(spaces.Discrete(4), ActorCriticNet(hidden=(32, 32))),
    "td3": Case(BOX, ActorCriticNet(hidden=(32, 32)), deterministic=True),
    "linear": Case(spaces.Discrete(3), QNet(hidden=())),
    "discrete-obs": Case(spaces.Discrete(3), Network(hidden=(8,)), spaces.Discrete(5, start=-2)),
    "float64-obs": Case(spaces.Discrete(3), Network(hidden=(8,)), spaces.Box(-1, 1, (2, 3), np.float64)),
}
IMAGES = {
    "minatar": Case(spaces.Discrete(4), Network(image="minatar"), image(10, 10, 4)),
    "minatar-planes": Case(spaces.Discrete(4), Network(image="minatar", normalize_obs=True), image(4, 12, 12)),
    "minatar-flags": Case(
        spaces.Discrete(4), Network(image="minatar"), spaces.Box(0, 1, (10, 10, 4), cast("Any", np.bool_))
    ),
    "minatar-floats": Case(spaces.Discrete(3), QNet(image="minatar"), spaces.Box(-1, 1, (9, 10, 3), np.float32)),
    "stack-of-colors": Case(BOX, Network(image="nips"), image(2, 21, 22, 3)),
    "nature": Case(spaces.Discrete(4), QNet(image="nature", layer_norm=True), image(4, 40, 36)),
    "impala-lstm": Case(
        BOX, Network(image="impala", recurrent="lstm", recurrent_size=16, hidden=(24,)), image(16, 17, 3)
    ),
    "flat-image": Case(spaces.Discrete(4), Network(hidden=(16,), image="flat"), image(6, 5)),
}


def spread(policy: nn.Module) -> nn.Module:
    """Weights and statistics such that actions differ from one observation to the next."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            scale = 0.3 if "bias" in name or "log_std" in name else 1.5 / np.sqrt(parameter.shape[-1])
            parameter.add_(drawn * scale if parameter.dim() < 4 else drawn * 0.02)
        for module in policy.modules():
            if isinstance(module, Normalizer | PixelNormalizer):
                module.mean.copy_(module.mean + torch.randn(module.mean.shape, generator=generator))
                module.inv_std.mul_(0.5 + torch.rand(module.mean.shape, generator=generator))
    return policy.eval()


def observations(space: spaces.Space, count: int, seed: int = 0) -> Any:
    """As many observations, as a tree of arrays [count, ...]."""
    rng = np.random.default_rng(seed)
    if isinstance(space, spaces.Dict):
        return {key: observations(part, count, seed + n) for n, (key, part) in enumerate(space.items())}
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.start, space.start + space.n, count)
    if isinstance(space, spaces.MultiDiscrete):
        return rng.integers(space.start, space.start + space.nvec, (count, *space.shape))
    if isinstance(space, spaces.MultiBinary):
        return rng.integers(0, 2, (count, *space.shape), np.int8)
    assert isinstance(space, spaces.Box)
    if space.dtype.kind == "f":
        low, high = (-2, 2) if not space.is_bounded() else (space.low.min(), space.high.max())
        return rng.uniform(low, high, (count, *space.shape)).astype(space.dtype)
    most = 2 if space.dtype == np.bool_ else 256
    brightness = rng.random((count, *[1] * len(space.shape)))  # a network for images averages noise away
    return (rng.integers(0, most, (count, *space.shape)) * brightness).round().astype(space.dtype)
