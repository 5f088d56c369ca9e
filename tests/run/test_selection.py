"""Population-based training inside a run: what is compared and copied, whose policy is kept, what is refused."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

import shoal
from shoal.envs.registry import make
from shoal.memory.reader import Reader
from shoal.nets.policy import PlainPolicy
from shoal.report.lineage import takeovers_of
from shoal.run import checkpoint
from shoal.run.exploit import Copy
from shoal.run.log import read
from shoal.run.ranking import Ranking
from shoal.run.settings import Settings
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SMALL: dict[str, Any] = {
    "algo": "dqn",
    "total_timesteps": 1200,
    "panel": "none",
    "preset": "none",
    "final_episodes": 0,
    "batch_size": 8,
    "network": {"hidden": (8,)},
    "num_threads": 1,
    "num_envs": 8,
    "agents": 2,
    "stop_at": math.inf,
    "replay": {"buffer_size": 800, "learning_starts": 100, "samples_per_insert": 4.0},
}
COPYING: dict[str, Any] = {
    "vary": ("learning_rate=1e-3,5e-3", "gamma=0.9,0.97"),
    "exploit_interval": 200,
    "evaluation_episodes": 10,
    "significance": 0.5,
}


class Landing(gym.Env[Any, Any]):
    """Action 1 hovers: 1 a step, for 5 steps. Action 0 comes down: 0.5 a step, for 20 steps."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        over = self.steps >= (5 if action else 20)
        return np.zeros(1, np.float32), 1.0 if action else 0.5, over, False, {}


class Always(nn.Module):
    """Always the same action."""

    def __init__(self, action: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.eye(2)[action])

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits.expand(len(obs), 2), obs[:, 0]


def weights(path: Path) -> dict[str, bytes]:
    """Each agent's policy in the newest checkpoint."""
    found = checkpoint.load(path / "checkpoints")
    assert found is not None
    return {
        name: b"".join(x.numpy().tobytes() for x in own["networks"]["policy"]["module"].values())
        for name, own in found.tree["learner"].items()
    }


def test_agents_are_ranked_by_returns_of_episodes() -> None:
    """The lander's episodes come to 10, the hoverer's to 5, though each of its steps is worth twice as much."""
    rows = make(Landing, 2)
    policies = {"hoverer": PlainPolicy(Always(1), rows.spec), "lander": PlainPolicy(Always(0), rows.spec)}
    settings = Settings(env="", algo="", seed=1, num_envs=2, total_timesteps=1)
    returns, steps = Ranking(rows, 4).play(policies, settings, 1)
    assert {name: own.tolist() for name, own in returns.items()} == {"hoverer": [5.0] * 4, "lander": [10.0] * 4}
    assert steps == 4 * 5 + 4 * 20


def test_a_copy_takes_weights_and_settings(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takeover is a line; settings after it are the parent's times a factor, in the optimizer and the reader."""
    horizons: list[tuple[int, float]] = []
    set_horizon = Reader.set_horizon

    def note(self: Reader, *, n_step: int, gamma: float) -> None:
        set_horizon(self, n_step=n_step, gamma=gamma)
        horizons.append((n_step, gamma))

    monkeypatch.setattr(Reader, "set_horizon", note)
    result = shoal.train("CartPole-v1", run_dir=str(run_dir), population=COPYING, **SMALL)
    lines = read(result.path / "metrics.jsonl")
    found = takeovers_of(lines)
    now = {"agent0": {"learning_rate": 1e-3, "gamma": 0.9}, "agent1": {"learning_rate": 5e-3, "gamma": 0.97}}
    assert 1 <= len(found) <= 6
    for taken in found:
        assert taken.parent_return > taken.child_return
        before, after = ({name: pair[i] for name, pair in taken.settings.items()} for i in (0, 1))
        assert before == now[taken.child]
        parent = now[taken.parent]
        assert round(after["learning_rate"] / parent["learning_rate"], 6) in (0.8, 1.2)
        assert round((1 - after["gamma"]) / (1 - parent["gamma"]), 6) in (0.8, 1.2)
        now[taken.child] = after
    assert horizons == [(1, taken.settings["gamma"][1]) for taken in found]
    rates = {name: lines[-1][f"train/learning_rate/{name}"] for name in now}
    assert rates == pytest.approx({name: own["learning_rate"] for name, own in now.items()})
    compared = [line["step"] for line in lines if "population/return/agent0" in line]
    assert compared == [224, 416, 608, 800, 1024, 1216]  # the first multiples of 32 that reach one of 200


def test_agents_on_rollouts_copy_too(run_dir: Path) -> None:
    """After the last takeover, at the run's end, the child's weights are its parent's, and the ones that act."""
    told: dict[str, Any] = {
        name: SMALL[name] for name in ("panel", "preset", "final_episodes", "agents", "num_threads")
    }
    population = COPYING | {"significance": 0.5, "exploit_interval": 256, "vary": ("learning_rate=1e-5,1e-2",)}
    told |= {"algo": "ppo", "num_envs": 4, "num_steps": 32, "num_minibatches": 2, "total_timesteps": 1024}
    result = shoal.train("CartPole-v1", run_dir=str(run_dir), seed=1, stop_at=math.inf, population=population, **told)
    found = takeovers_of(read(result.path / "metrics.jsonl"))
    assert found
    assert all(taken.parent_return > taken.child_return for taken in found)
    assert len(set(weights(result.path).values())) == (1 if found[-1].step == 1024 else 2)


def test_comparing_changes_no_bit_of_training(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody is found to be better, a run with comparisons equals the one without; the best one is kept."""
    monkeypatch.setattr("shoal.run.selection.copies_of", lambda returns, population, rng: [])
    quiet: dict[str, Any] = SMALL | {"total_timesteps": 700}
    plain = shoal.train("CartPole-v1", run_dir=str(run_dir / "plain"), **quiet)
    quiet["population"] = {"exploit_interval": 300, "evaluation_episodes": 6}
    beside = shoal.train("CartPole-v1", run_dir=str(run_dir / "beside"), **quiet)
    lines = read(beside.path / "metrics.jsonl")
    ranked = [line for line in lines if "population/return/agent0" in line]
    assert len(ranked) == 2
    assert weights(plain.path) == weights(beside.path)
    best = max(("agent0", "agent1"), key=lambda name: ranked[-1][f"population/return/{name}"])
    assert (plain.agent, beside.agent) == ("", best)


def test_the_best_agent_is_kept(run_dir: Path) -> None:
    """Ranked at the end on episodes of their own; its policy is returned and loaded, and run.json names it."""
    settings: dict[str, Any] = SMALL | {"final_episodes": 3, "total_timesteps": 300}
    settings["population"] = {"vary": ("learning_rate=1e-3,3e-2",), "evaluation_episodes": 6}
    result = shoal.train("CartPole-v1", run_dir=str(run_dir), seed=4, **settings)
    last = read(result.path / "metrics.jsonl")[-1]
    best = max(("agent0", "agent1"), key=lambda name: last[f"population/return/{name}"])
    assert result.agent == json.loads((result.path / "run.json").read_text())["kept"] == best
    saved = b"".join(x.numpy().tobytes() for x in result.policy.state_dict().values())
    loaded = b"".join(x.numpy().tobytes() for x in shoal.load(result.path).policy.state_dict().values())
    assert saved == loaded == weights(result.path)[best]


@pytest.mark.parametrize(
    ("settings", "population", "message"),
    [
        ({"agents": 1}, {"exploit_interval": 100}, "exploit_interval=100 would change nothing: there is one agent"),
        (
            {},
            {"significance": 0.1},
            "population.significance=0.1 would change nothing: set population.exploit_interval",
        ),
        ({}, {"exploit_interval": 1200}, "exploit_interval=1,200 steps are not over before the run is"),
        ({}, {"exploit_interval": 100, "evaluation_episodes": 3}, "evaluation_episodes=3 is too few .* at least 4"),
        (
            {},
            {"exploit_interval": 100, "vary": ("batch_size=8,16",)},
            "batch_size is varied, but dqn does not take another value while it trains; these can: learning_rate",
        ),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], population: dict[str, Any], message: str, run_dir: Path) -> None:
    told: dict[str, Any] = SMALL | settings
    with pytest.raises(ConfigError, match=message):
        shoal.train("CartPole-v1", run_dir=str(run_dir), population=population, **told)


@pytest.mark.parametrize("algo", ["sac", pytest.param("td3", marks=pytest.mark.slow)])
def test_rates_of_all_networks_follow(algo: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one takeover at which everything is doubled: the actor's rate, the critics' and the temperature's."""
    copies = [Copy("agent1", "agent0", 0.0)]
    monkeypatch.setattr("shoal.run.selection.copies_of", lambda returns, population, rng: copies)
    vary = ("learning_rate=1e-3,1e-4", "critic_learning_rate=3e-3,1e-4", "gamma=0.9,0.5")
    settings: dict[str, Any] = SMALL | {"algo": algo, "total_timesteps": 280, "num_envs": 2}
    settings["population"] = {"vary": vary, "exploit_interval": 220, "evaluation_episodes": 7, "perturb": (2.0,)}
    result = shoal.train("Pendulum-v1", run_dir=str(run_dir), **settings)
    found = checkpoint.load(result.path / "checkpoints")
    assert found is not None
    rates = {
        name: own["optimizer"]["param_groups"][0]["lr"]
        for name, own in found.tree["learner"]["agent1"]["networks"].items()
        if "optimizer" in own
    }
    assert rates == {"policy": 2e-3, "critics": 6e-3} | ({"temperature": 2e-3} if algo == "sac" else {})


@pytest.mark.parametrize("algo", ["ppo", pytest.param("a2c", marks=pytest.mark.slow)])
def test_agents_on_rollouts_take_over_too(algo: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last takeover, which comes when the run is over, both agents have the same weights, but other rates."""
    copies = [Copy("agent1", "agent0", 0.0)]
    monkeypatch.setattr("shoal.run.selection.copies_of", lambda returns, population, rng: copies)
    population = {"exploit_interval": 128, "evaluation_episodes": 6, "perturb": (2.0,)}
    settings: dict[str, Any] = {"agents": 2, "num_envs": 4, "num_steps": 16, "total_timesteps": 256}
    settings |= {"panel": "none", "preset": "none", "final_episodes": 0, "stop_at": math.inf, "learning_rate": 1e-3}
    if algo == "ppo":
        settings |= {"num_minibatches": 2, "update_epochs": 1, "learning_rate_schedule": "linear"}
    result = shoal.train("CartPole-v1", algo=algo, run_dir=str(run_dir), population=population, **settings)
    found = takeovers_of(read(result.path / "metrics.jsonl"))
    assert [(taken.step, taken.settings) for taken in found] == [
        (128, {"learning_rate": (1e-3, 2e-3)}),
        (256, {"learning_rate": (2e-3, 2e-3)}),
    ]
    assert len(set(weights(result.path).values())) == 1
