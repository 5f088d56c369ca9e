"""Evaluation ends, whatever the policy and the environment do."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from shoal.envs.costs.rows import costed
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.nets.policy import PlainPolicy
from shoal.run.evaluate import Score, evaluate


class Loop(gym.Env[Any, Any]):
    """Ends only on action 1; every step is worth 2."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 2.0, action == 1, False, {}


class Toll(Loop):
    """Costs 1 more in each of its rows than in the one before, in every step."""

    made = 0

    def __init__(self) -> None:
        Toll.made += 1
        self.cost = float(Toll.made)

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, over, cut, _ = super().step(action)
        return obs, reward, over, cut, {"cost": self.cost}


class Always(nn.Module):
    """Always the same action."""

    def __init__(self, action: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.eye(2)[action])

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits.expand(len(obs), 2), obs[:, 0]


def test_an_endless_episode_is_cut_and_said_so() -> None:
    """With a limit of 50 steps, three episodes of action 0 count 100 each, and a warning names the row."""
    rows = make(Loop, 2)
    with pytest.warns(UserWarning, match="row 0 has not ended after 50 steps"):
        score = evaluate(PlainPolicy(Always(0), rows.spec), rows, episodes=3, acting=Acting(0), max_steps=50)
    assert score.returns.tolist() == [100.0] * 3
    assert score.lengths.tolist() == [50.0] * 3


@pytest.mark.filterwarnings("ignore:.*has not ended")
def test_costs_of_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What whole episodes cost, and what endless ones cost so far; nothing where steps have no cost."""

    def costs(action: int, **settings: Any) -> Any:
        monkeypatch.setattr(Toll, "made", 0)
        rows = costed(make(Toll, 2, preprocessing=Preprocessing(**settings)))
        return evaluate(PlainPolicy(Always(action), rows.spec), rows, episodes=3, acting=Acting(0), max_steps=50)

    assert costs(1, cost_key="cost").costs.tolist() == [1.0, 1.0, 2.0]
    score = costs(0, cost_key="cost")
    assert score.costs.tolist() == [50.0, 50.0, 100.0]
    assert score.numbers("eval/")["eval/cost_worst"] == 100.0
    assert costs(1).costs is None


def test_episodes_that_end_are_whole() -> None:
    """Action 1 ends each episode after one step of 2."""
    rows = make(Loop, 2)
    score = evaluate(PlainPolicy(Always(1), rows.spec), rows, episodes=5, acting=Acting(0))
    assert score.returns.tolist() == [2.0] * 5


def test_a_score_is_one_line() -> None:
    score = Score(np.array([0.5, -1.0]), np.array([3.0, 4.0]))
    assert repr(score) == "Score(mean=-0.25, std=0.75, episodes=2, mean_length=3.5)"
    with_costs = Score(np.full(100, 12.0), np.ones(100), np.full(100, 2.5))
    assert repr(with_costs) == "Score(mean=12.0, std=0.0, cost=2.5, episodes=100, mean_length=1.0)"
