"""An environment and a policy so plain that every number of a rollout is known: they count."""

from __future__ import annotations

from itertools import count
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from shoal.envs import serial
from shoal.envs.outputs import Outputs
from shoal.envs.vec_env import Capabilities
from shoal.nets.distributions import Categorical
from shoal.nets.policy import Output
from shoal.types import Ready

LENGTHS = (3, 2, 1000)
"""Row 0 terminates after 3 steps, row 1 is truncated after 2, row 2 goes on; then the same again."""


class Counting(gym.Env[Any, Any]):
    """Observes (row, steps since the reset); the reward is that step plus an eighth of the action."""

    observation_space = spaces.Box(-1, 2000, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, row: int, nan_at: int | None = None) -> None:
        """`nan_at`: the step of row 1 that is observed as NaN."""
        self.row, self.step_count, self.nan_at = row, 0, nan_at

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Counts from 0."""
        super().reset(seed=seed)
        self.step_count = 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Counts on; even rows terminate, odd ones are truncated."""
        reward = self.step_count + int(action) / 8
        self.step_count += 1
        ended = self.step_count == LENGTHS[self.row % 3]
        return self._obs(), reward, ended and self.row % 2 == 0, ended and self.row % 2 == 1, {}

    def _obs(self) -> Any:
        broken = self.row == 1 and self.step_count == self.nan_at
        return np.array([self.row, np.nan if broken else self.step_count], np.float32)


def counting_rows(num_rows: int = 3, nan_at: int | None = None) -> serial.SerialEnv:
    """Rows 0, 1, 2, ... of the counting environment."""
    rows = count()
    return serial.make(lambda: Counting(next(rows), nan_at), num_rows, name="Counting-v0")


class LateReset:
    """One row that counts to 2, terminates, and then spends a step that only resets it, as some libraries do."""

    def __init__(self) -> None:
        self.spec, self.num_rows = counting_rows().spec, 1
        self.out = Outputs(self.spec, 1)
        self.step_count, self.late = 0, False

        self.capabilities, self.native_pool, self.python_rows = Capabilities(), None, None
        self.dropped = np.zeros(1, np.bool_)

    def reset(self, seed: Any) -> None:
        """Counts from 0."""
        self.step_count = 0

    def recv(self) -> Ready:
        """The only row."""
        return self.out.view(slice(0, 1))

    def send(self, rows: slice, action: Any) -> None:
        """Steps at once; after an end the action does not matter and the step is invalid."""
        out = self.out
        self.step_count = 0 if self.late else self.step_count + 1
        ended = self.step_count == 2
        out.valid[0], out.terminated[0], self.late = not self.late, ended, ended
        out.obs[0] = out.final_obs[0] = (0, self.step_count)
        out.reward[0] = float(out.valid[0])
        out.episode_return[0] = out.episode_length[0] = self.step_count

    def restart(self, *args: Any, **keywords: Any) -> None:
        """Not needed here."""
        raise NotImplementedError

    def render(self, row: int) -> Any:
        """Not needed here."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Not needed here."""
        raise NotImplementedError

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Not needed here."""
        raise NotImplementedError

    def close(self) -> None:
        """Holds nothing."""


class CountingPolicy(nn.Module):
    """Its state counts the steps since the start; it chooses (row + step + shift) mod 3.

    The value is 100 row + 10 step + count: within an episode 100 row + 11 step + 1.
    """

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([float(shift)]))

    def initial_state(self, num_rows: int) -> Tensor:
        """Nothing counted."""
        return torch.zeros(num_rows)

    def forward(self, obs: Tensor, state: Tensor, start: Tensor) -> Output:
        """[T, B, 2] -> Output."""
        counts: list[Tensor] = []
        for start_t in start:
            state = torch.where(start_t, 0.0, state) + 1
            counts.append(state)
        row, step = obs.unbind(-1)
        chosen = (row + step + self.shift).remainder(3)
        logits = 100 * (chosen.unsqueeze(-1) == torch.arange(3)).float()
        return Output(Categorical(logits), 100 * row + 10 * step + torch.stack(counts), state)
