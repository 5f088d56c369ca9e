"""Cases of off-policy evaluation whose actions are numbers: linear systems, driven by formulas with added noise.

The policy that is asked about is greedy, so that there are no probabilities, and fitted Q evaluation is all there is.
Half of the systems end an episode where a state leaves its bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from shoal.memory.data_file import Episode
from shoal.types import Spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LIMIT, GAMMA = 60, 0.97
EPISODES, TRUE_EPISODES = 150, 2_000
BOUND = 2.5
"""Of a state, where episodes end."""
PRICE = 0.1
"""Of an action's square, where a state's costs 0.3 to 1."""


class Tanh(nn.Module):
    """A policy that is a saturated linear formula."""

    def __init__(self, gain: Array) -> None:
        """`gain` [actions, states]."""
        super().__init__()
        self.gain = nn.Parameter(torch.from_numpy(gain).float())
        self.log_std = nn.Parameter(torch.full((len(gain),), -2.0))

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Observations [N, states] -> mean [N, actions], log_std, values [N]."""
        return torch.tanh(-obs @ self.gain.T), self.log_std, torch.zeros(len(obs))


@dataclass
class System:
    """x' = A x + B a + noise, reward 1 - cost."""

    a: Array
    b: Array
    cost: Array
    ends: bool

    @classmethod
    def drawn(cls, rng: np.random.Generator, states: int, actions: int, *, ends: bool) -> System:
        """One whose fastest mode grows by 3 % a step while nothing is done."""
        flow = rng.normal(0, 1, (states, states))
        flow -= np.eye(states) * max(0.0, np.linalg.eigvals(flow).real.max() - 0.3)
        push = 0.2 * rng.normal(0, 1, (states, actions))
        return cls(np.eye(states) + 0.1 * flow, push, rng.uniform(0.3, 1, states), ends)

    def gain(self) -> Array:
        """The linear-quadratic regulator's, by iterating Riccati's equation."""
        value = np.diag(self.cost)
        found = np.zeros((self.b.shape[1], len(self.a)))
        for _ in range(500):
            price = PRICE * np.eye(len(found)) + GAMMA * self.b.T @ value @ self.b
            found = np.asarray(np.linalg.solve(price, GAMMA * self.b.T @ value @ self.a), np.float64)
            value = np.diag(self.cost) + GAMMA * self.a.T @ value @ (self.a - self.b @ found)
        return found

    def play(self, act: Callable[[Array], Array], count: int, rng: np.random.Generator) -> list[Episode]:
        """Episodes, all side by side."""
        state = rng.normal(0, 0.7, (count, len(self.a)))
        seen, acted, got = [state], [], []
        for _ in range(LIMIT):
            action = np.clip(act(state), -1, 1)
            got.append(1 - np.square(state) @ self.cost - PRICE * np.square(action).sum(1))
            state = state @ self.a.T + action @ self.b.T + 0.03 * rng.normal(size=state.shape)
            seen.append(state)
            acted.append(action)
        out = np.array([np.abs(one).max(1) > BOUND for one in seen[1:]]) & self.ends
        return [_cut(number, out[:, number], seen, acted, got) for number in range(count)]


def _cut(number: int, out: NDArray[np.bool_], seen: list[Array], acted: list[Array], got: list[Array]) -> Episode:
    ended = bool(out.any())
    steps = int(out.argmax()) + 1 if ended else LIMIT
    flags = np.zeros((2, steps), np.bool_)
    flags[:, -1] = ended, not ended
    obs = np.array([one[number] for one in seen[: steps + 1]], np.float32)
    action = np.array([one[number] for one in acted[:steps]], np.float32)
    return Episode(obs, action, np.array([one[number] for one in got[:steps]]), flags[0], flags[1])


@dataclass
class Case:
    """A log, the policy that is asked about, and what it returns."""

    module: nn.Module
    spec: Spec
    log: list[Episode]
    returns: Array
    """Discounted, of the policy's own episodes."""


def box_case(seed: int) -> Case:
    """The log's controller has 0.3 to 0.8 of the regulator's gains and noise of 0.15 to 0.4, the policy 0.8 to 1.2."""
    rng = np.random.default_rng(seed)
    states, actions = ((2, 1), (3, 1), (4, 2))[seed % 3]
    system = System.drawn(rng, states, actions, ends=bool(seed % 2))
    best = system.gain()
    weak, asked = best * rng.uniform(0.3, 0.8), best * rng.uniform(0.8, 1.2)
    noise = rng.uniform(0.15, 0.4)

    def controller(state: Array) -> Array:
        return np.tanh(-state @ weak.T) + noise * rng.normal(size=(len(state), actions))

    def policy(state: Array) -> Array:
        return np.tanh(-state @ asked.T)

    log = system.play(controller, EPISODES, rng)
    own = system.play(policy, TRUE_EPISODES, rng)
    discount = GAMMA ** np.arange(LIMIT)
    returns = np.array([one.rewards @ discount[: len(one.rewards)] for one in own])
    seen, done = spaces.Box(-np.inf, np.inf, (states,), np.float32), spaces.Box(-1, 1, (actions,), np.float32)
    return Case(Tanh(asked), Spec.of("Linear-v0", seen, done), log, returns)
