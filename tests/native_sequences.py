"""A lowered recurrent policy beside the same torch policy in float64, and random sequences for both."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from shoal import _native
from shoal.learn.weights import pack
from shoal.nets.policy import Network, RecurrentPolicy, make_policy
from shoal.types import Spec

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Shape:
    """A recurrent policy's description, as RecurrentPlan takes it."""

    cell: Any = "gru"
    obs_size: int = 4
    hidden: tuple[int, ...] = (64, 64)
    size: int = 64
    head: str = "categorical"
    nvec: tuple[int, ...] = (2,)
    activation: Any = "tanh"

    @property
    def outputs(self) -> int:
        return sum(self.nvec)

    @property
    def gaussian(self) -> bool:
        return self.head == "gaussian"

    @property
    def action_size(self) -> int:
        return self.nvec[0] if self.gaussian else len(self.nvec)


SHAPES = [
    Shape(),
    Shape("lstm"),
    Shape("gru", obs_size=7, hidden=(33, 21), size=19, nvec=(3, 2, 5), activation="relu"),
    Shape("lstm", obs_size=18, hidden=(40,), size=24, head="gaussian", nvec=(3,)),
    Shape("gru", obs_size=5, hidden=(), size=7, head="gaussian", nvec=(1,)),
    Shape("lstm", obs_size=3, hidden=(), size=33, nvec=(18,)),
    Shape("lstm", obs_size=2, hidden=(16, 8, 24), size=1, nvec=(2, 2)),
]
KERNELS = _native.kernel_names()


def spec_of(shape: Shape) -> Spec:
    observation = spaces.Box(-np.inf, np.inf, (shape.obs_size,), np.float32)
    action: Any = spaces.MultiDiscrete(list(shape.nvec))
    if shape.gaussian:
        action = spaces.Box(-2.0, 2.0, (shape.nvec[0],), np.float32)
    return Spec.of("Toy", observation, action)


@dataclass
class Reference:
    """Outputs [T, n, ...], the memory after the last step, and the distribution over actions."""

    logits: torch.Tensor
    value: torch.Tensor
    state: Any
    distribution: Any


@dataclass
class Case:
    """A plan, the parameters that it reads, and the same policy in float64."""

    shape: Shape
    params: NDArray[np.float32]
    plan: Any
    policy: RecurrentPolicy

    def memory(self, sequences: Arrays, index: Any = slice(None)) -> Any:
        h = torch.from_numpy(sequences["h"][index]).double()
        if self.shape.cell == "gru":
            return h
        return h, torch.from_numpy(sequences["c"][index]).double()

    def reference(self, given: Arrays, index: Any = slice(None)) -> "Reference":
        """What torch's own cells and layers say of the chosen rows' sequences, in float64."""
        policy: Any = self.policy
        memory = self.memory(given, index)
        outputs: list[torch.Tensor] = []
        for t in range(len(given["obs"])):
            x = policy.body(torch.from_numpy(given["obs"][t, index]).double())
            keep = 1.0 - torch.from_numpy(given["start"][t, index]).double().unsqueeze(-1)
            if self.shape.cell == "lstm":
                memory = policy.cell(x, (memory[0] * keep, memory[1] * keep))
                outputs.append(memory[0])
            else:
                memory = policy.cell(x, memory * keep)
                outputs.append(memory)
        hidden = torch.stack(outputs)
        logits = policy.actor(hidden)
        value = policy.critic(hidden).squeeze(-1)
        return Reference(logits, value, memory, policy.head(logits, policy.log_std))

    def flat_grad(self) -> NDArray[np.float64]:
        own = list(self.policy.parameters(recurse=False))
        others = [p for p in self.policy.parameters() if all(p is not q for q in own)]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in (*others, *own)]
        return torch.cat([part.reshape(-1) for part in parts]).numpy()


def make(
    shape: Shape, *, threads: int = 1, block: int = 64, shards: int = 1, kernels: str = "", scale: float = 1.0
) -> Case:
    network: Any = Network(
        hidden=shape.hidden, activation=shape.activation, recurrent=shape.cell, recurrent_size=shape.size
    )
    policy = make_policy(spec_of(shape), network, 0)
    assert isinstance(policy, RecurrentPolicy)
    flat = pack(policy)
    rng = np.random.default_rng(3)
    flat.copy_(torch.from_numpy(rng.uniform(-scale, scale, flat.numel())) / np.sqrt(shape.size + 3))
    params = flat.numpy()
    plan = _native.RecurrentPlan(
        params,
        shape.obs_size,
        list(shape.hidden),
        shape.cell,
        shape.size,
        shape.head,
        list(shape.nvec),
        shape.activation,
        threads,
        block,
        shards,
        kernels,
    )
    return Case(shape, params, plan, copy.deepcopy(policy).double())


def sequences(shape: Shape, steps: int, rows: int, *, starts: float = 0.2, seed: int = 0) -> Arrays:
    """Observations, random starts, a memory before step 0, and all that losses read."""
    rng = np.random.default_rng(seed)
    lead = (steps, rows)
    choices = np.stack([rng.integers(0, n, lead) for n in shape.nvec], axis=-1)
    action = rng.standard_normal((*lead, shape.action_size)).astype(np.float32) if shape.gaussian else choices
    return {
        "obs": rng.standard_normal((*lead, shape.obs_size)).astype(np.float32),
        "start": rng.random(lead) < starts,
        "h": rng.uniform(-0.9, 0.9, (rows, shape.size)).astype(np.float32),
        "c": rng.standard_normal((rows, shape.size)).astype(np.float32),
        "action": action,
        "log_prob": rng.uniform(-1.5, -0.2, lead).astype(np.float32),
        "value": rng.standard_normal(lead).astype(np.float32),
        "advantage": rng.normal(0.3, 2.0, lead).astype(np.float32),
        "target": rng.standard_normal(lead).astype(np.float32),
    }


def native(shape: Shape, given: Arrays, *, mask: Any = None, valid: Any = None) -> Any:
    """The same as the plan takes it."""
    n = given["start"].size
    columns = {name: given[name].reshape(n) for name in ("log_prob", "value", "advantage", "target")}
    options = None if mask is None else mask.reshape(n, -1)
    samples = _native.Samples(given["obs"].reshape(n, -1), given["action"].reshape(n, -1), columns, mask=options)
    c = given["c"] if shape.cell == "lstm" else None
    return _native.Sequences(samples, given["start"], given["h"], c, valid=valid)


def forward_train(case: Case, given: Arrays, index: Any = None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    steps, rows = given["start"].shape
    count = rows if index is None else len(index)
    logits = np.full((steps, count, case.shape.outputs), np.nan, np.float32)
    value = np.full((steps, count), np.nan, np.float32)
    case.plan.forward_train(native(case.shape, given), index, logits, value)
    return logits, value


def act(case: Case, obs: Any, start: Any, memory: list[Any], *, step: int, greedy: bool = False) -> Arrays:
    """One step of all rows; `memory` (h, or h and c) advances in place."""
    n = len(obs)
    out: Arrays = {
        "action": np.zeros((n, case.shape.action_size), np.float32 if case.shape.gaussian else np.int64),
        "log_prob": np.full(n, np.nan, np.float32),
        "value": np.full(n, np.nan, np.float32),
    }
    h, c = memory[0], memory[1] if case.shape.cell == "lstm" else None
    numbers, steps = np.arange(n, dtype=np.int64), np.full(n, step, np.int64)
    case.plan.act(obs, start, h, c, 7, 2, numbers, steps, greedy, out["action"], out["log_prob"], out["value"])
    return out


def identical(left: Any, right: Any) -> None:
    assert left.dtype == right.dtype
    assert left.tobytes() == right.tobytes()
