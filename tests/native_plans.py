"""A lowered policy beside the same policy as torch modules in float64."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shoal import _native

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Shape:
    """A policy's description, as MlpPlan takes it."""

    obs_size: int = 4
    hidden: tuple[int, ...] = (64, 64)
    head: str = "categorical"
    nvec: tuple[int, ...] = (2,)
    activation: str = "tanh"

    @property
    def outputs(self) -> int:
        return sum(self.nvec)

    @property
    def num_params(self) -> int:
        total = self.nvec[0] if self.head == "gaussian" else 0
        for last in (self.outputs, 1):
            sizes = (self.obs_size, *self.hidden, last)
            total += sum(i * o + o for i, o in itertools.pairwise(sizes))
        return total


@dataclass
class Case:
    """A plan beside the same policy as torch modules in float64."""

    shape: Shape
    params: NDArray[np.float32]
    plan: Any
    actor: nn.Sequential
    critic: nn.Sequential
    log_std: torch.Tensor | None
    leaves: list[torch.Tensor] = field(default_factory=list)

    def distribution(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.actor(obs), self.critic(obs).squeeze(-1)

    def log_prob_entropy(
        self, out: torch.Tensor, action: NDArray[Any], mask: NDArray[np.bool_] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.log_std is not None:
            normal = torch.distributions.Normal(out, self.log_std.exp().expand_as(out))
            return normal.log_prob(torch.from_numpy(action).double()).sum(-1), normal.entropy().sum(-1)
        if mask is not None:
            out = out.masked_fill(~torch.from_numpy(mask), -1e30)
        log_prob, entropy = torch.zeros(()), torch.zeros(())
        for k, logits in enumerate(out.split(list(self.shape.nvec), -1)):
            part = torch.distributions.Categorical(logits=logits)
            log_prob = log_prob + part.log_prob(torch.from_numpy(action[:, k]))
            entropy = entropy + part.entropy()
        return log_prob, entropy

    def flat_grad(self) -> NDArray[np.float64]:
        return np.concatenate([leaf.grad.numpy().ravel() for leaf in self.leaves if leaf.grad is not None])


def towers(shape: Shape, params: NDArray[np.float32]) -> tuple[list[nn.Sequential], list[torch.Tensor], int]:
    activation = nn.Tanh if shape.activation == "tanh" else nn.ReLU
    at, leaves, out = 0, list[torch.Tensor](), list[nn.Sequential]()
    for last in (shape.outputs, 1):
        sizes = (shape.obs_size, *shape.hidden, last)
        modules: list[nn.Module] = []
        for i, o in itertools.pairwise(sizes):
            linear = nn.Linear(i, o, dtype=torch.float64)
            for leaf in (linear.weight, linear.bias):
                leaf.data = torch.from_numpy(params[at : at + leaf.numel()]).double().view_as(leaf)
                at += leaf.numel()
                leaves.append(leaf)
            modules += [linear, activation()]
        out.append(nn.Sequential(*modules[:-1]))
    return out, leaves, at


def make(
    shape: Shape, *, threads: int = 1, block: int = 64, shards: int = 1, kernels: str = "", scale: float = 1.0
) -> Case:
    rng = np.random.default_rng(3)
    params = rng.uniform(-scale, scale, shape.num_params).astype(np.float32)
    params *= np.float32(1.0 / math.sqrt(max(shape.hidden, default=1)))
    plan = _native.MlpPlan(
        params,
        shape.obs_size,
        list(shape.hidden),
        shape.head,
        list(shape.nvec),
        shape.activation,
        threads,
        block,
        shards,
        kernels,
    )
    (actor, critic), leaves, at = towers(shape, params)
    log_std = None
    if shape.head == "gaussian":
        log_std = torch.from_numpy(params[at:]).double().requires_grad_()
        leaves.append(log_std)
    return Case(shape, params, plan, actor, critic, log_std, leaves)


SHAPES = [
    Shape(),
    Shape(obs_size=17, hidden=(33, 21), nvec=(3, 2, 5), activation="relu"),
    Shape(obs_size=3, hidden=(40,), head="gaussian", nvec=(1,)),
    Shape(obs_size=20, hidden=(24, 17, 9), head="gaussian", nvec=(3,), activation="relu"),
    Shape(obs_size=9, hidden=(), nvec=(18,)),
]
KERNELS = _native.kernel_names()


def forward(plan: Any, shape: Shape, obs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    logits = np.full((len(obs), shape.outputs), np.nan, np.float32)
    value = np.full(len(obs), np.nan, np.float32)
    plan.forward(obs, logits, value)
    return logits, value


def act(
    plan: Any,
    shape: Shape,
    obs: NDArray[np.float32],
    *,
    rows: Any,
    steps: Any,
    greedy: bool = False,
    stream: int = 2,
    mask: NDArray[np.bool_] | None = None,
) -> Arrays:
    gaussian = shape.head == "gaussian"
    size = shape.nvec[0] if gaussian else len(shape.nvec)
    out: Arrays = {
        "action": np.zeros((len(obs), size), np.float32 if gaussian else np.int64),
        "log_prob": np.full(len(obs), np.nan, np.float32),
        "value": np.full(len(obs), np.nan, np.float32),
    }
    plan.act(obs, 7, stream, rows, steps, greedy, *out.values(), mask=mask)
    return out


def observations(shape: Shape, count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, shape.obs_size)).astype(np.float32)


def masks(shape: Shape, count: int, seed: int = 5) -> NDArray[np.bool_]:
    """Random masks [count, options] that leave each choice at least one option."""
    rng = np.random.default_rng(seed)
    mask = rng.random((count, shape.outputs)) < 0.6
    first = 0
    for options in shape.nvec:
        mask[np.arange(count), first + rng.integers(0, options, count)] = True
        first += options
    return mask


def identical(left: Any, right: Any) -> None:
    assert left.dtype == right.dtype
    assert left.tobytes() == right.tobytes()
