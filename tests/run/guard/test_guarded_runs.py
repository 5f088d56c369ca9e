"""Guarded runs of shoal's algorithms: what a rollback restores, who is watched, and how they go on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import shoal
from shoal.run.guard.guard import Guard
from shoal.run.guard.notes import read_notes
from shoal.run.guard.seen import Finding, Seen
from shoal.types import EnvError
from tests.run.beats import every
from tests.run.test_resume import CARTPOLE, metrics_sha256, run_child, weights_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from shoal.run.run import Run
    from tests.fork_server import Interpreter

SMALL: dict[str, Any] = {
    "num_threads": 1,
    "preset": "none",
    "stop_at": math.inf,
    "final_episodes": 0,
    "panel": "plain",
    "guarding": {"verify": 2, "without": ["return", "value", "gradient"]},
}
PPO: dict[str, Any] = {"algo": "ppo", "num_envs": 32, "num_steps": 64, "update_epochs": 1, "num_minibatches": 2}
WAYS: dict[str, tuple[dict[str, Any], int]] = {
    "native": (PPO, 8),
    "torch": (PPO | {"native": False}, 8),
    "statistics": (PPO | {"network": {"normalize_obs": True}}, 8),
    "actors": (PPO | {"actors": 2, "schedule": "async"}, 8),
    "replay": ({"algo": "dqn", "num_envs": 32, "num_steps": 8, "replay": {"learning_starts": 512}}, 400),
}

LONG = ("torch", "actors")


class Quiet:
    """A callback that takes warnings and keeps what the guard left, at the line of one update."""

    episodes = False

    def __init__(self, update: int) -> None:
        self.update = update
        self.told: list[str] = []
        self.learned: dict[str, Mapping[str, torch.Tensor]] = {}
        self.kept: dict[str, Mapping[str, torch.Tensor]] = {}

    def __call__(self, run: Run, record: Any) -> None:
        if run.updates != self.update or run.guard is None:
            return
        for name, watch in run.guard.watches.items():
            good = watch.states.good
            assert good is not None
            self.learned[name] = copied(watch.learner.policy)
            self.kept[name] = good.state["networks"]["policy"]["module"]

    def warn(self, message: str) -> None:
        if message.startswith("guard: "):
            self.told.append(message)


def copied(policy: nn.Module) -> dict[str, torch.Tensor]:
    return {name: x.detach().clone() for name, x in policy.state_dict().items()}


def equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(x, other[name]) for name, x in one.items())


def back_at(update: int, learner: str = "policy") -> Any:
    """A rule that sends a learner back at one update."""

    def unhappy(seen: Seen) -> Finding | None:
        wrong = seen.update == update and seen.learner == learner
        return Finding("as the test says", "rollback") if wrong else None

    return unhappy


def train(path: Path, update: int, callback: Quiet, **told: Any) -> Any:
    steps = 12_000 if told["algo"] == "dqn" else (update + 2) * told["num_envs"] * told["num_steps"]
    given: dict[str, Any] = SMALL | told | {"total_timesteps": steps, "run_dir": path, "callbacks": [callback]}
    return shoal.train("CartPole-v1", **given)


@pytest.mark.parametrize("way", [pytest.param(way, marks=pytest.mark.slow) if way in LONG else way for way in WAYS])
def test_a_rollback_restores_every_way_of_learning(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every(monkeypatch, log=1, save=100_000)
    told, update = WAYS[way]
    callback = Quiet(update)
    result = train(tmp_path, update, callback, rules=[back_at(update)], **told)
    assert equal(callback.learned["policy"], callback.kept["policy"])
    assert [x.action for x in read_notes(result.path).interventions] == ["rollback"]
    assert len(callback.told) == 1
    assert equal(copied(result.policy), copied(shoal.load(result.path).policy))


@pytest.mark.slow
def test_agents_are_watched_each_by_itself(tmp_path: Path) -> None:
    """Of two agents one goes back; the other learns on as without a guard."""
    update = 14
    told = PPO | {"agents": 2, "population": {"vary": ["learning_rate=1e-3,2e-3"]}}
    callback, plain = Quiet(update), Quiet(update)
    first = train(tmp_path / "a", update, callback, rules=[back_at(update, "agent1")], **told)
    train(tmp_path / "b", update, plain, **told)
    assert equal(callback.learned["agent1"], callback.kept["agent1"])
    assert not equal(callback.learned["agent1"], plain.learned["agent1"])
    assert equal(callback.learned["agent0"], plain.learned["agent0"])
    assert [x.learner for x in read_notes(first.path).interventions] == ["agent1"]


class Failing(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole whose reward is NaN from some step on."""

    count = 0

    def step(self, action: Any) -> Any:
        self.count += 1
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, math.nan if self.count > 600 else reward, terminated, truncated, info


def failing() -> gym.Env[Any, Any]:
    return Failing(gym.make("CartPole-v1"))


def test_an_environment_that_fails_leaves_the_verified_best(tmp_path: Path) -> None:
    given: dict[str, Any] = SMALL | PPO | {"total_timesteps": 64 * 32 * 20, "run_dir": tmp_path, "name": "run"}
    with pytest.raises(EnvError) as caught:
        shoal.train(failing, backend="serial", **given)
    (note,) = [x for x in caught.value.__notes__ if "verified best" in x]
    there = next(tmp_path.glob("*/*/run"))
    (made,) = read_notes(there).interventions
    assert (made.rule, made.action) == ("environment", "stop")
    best = shoal.load(there, tag="best", factory=failing)
    newest = shoal.load(there, factory=failing)
    assert not equal(copied(best.policy), copied(newest.policy))
    assert "of update " in note


@pytest.mark.slow
def test_several_learners_find_the_same(tmp_path: Path) -> None:
    """A finding by the numbers of both: their weights stay equal, which each checkpoint checks."""
    given: dict[str, Any] = SMALL | PPO | {"learners": 2, "total_timesteps": 64 * 32 * 8, "run_dir": tmp_path}
    given |= {"guarding": {"verify": 2, "kl": 1e-9}, "callbacks": [Quiet(-1)], "checkpoint_every": 64 * 32}
    result = shoal.train("CartPole-v1", **given)
    actions = [x.action for x in read_notes(result.path).interventions]
    assert actions
    assert {*actions} <= {"halve", "rollback", "stop"}


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_with_its_guard(tmp_path: Path, interpreter: Interpreter) -> None:
    """SIGKILL between two checkpoints, with findings before and after it: the same weights, lines and interventions."""
    settings: dict[str, Any] = {"algo": "ppo", "seed": 7, "num_minibatches": 2, "update_epochs": 4} | CARTPOLE
    settings |= {"guarding": {"verify": 1, "kl": 0.006}, "learning_rate": 3e-3, "total_timesteps": 8 * 16 * 400}
    task = {"env": "CartPole-v1", "settings": settings, "network": {"hidden": [32]}, "die_at": -1, "resume": False}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_child(interpreter, task | {"settings": settings | {"run_dir": str(whole)}}, tmp_path) == 0
    sound, there = (where / "CartPole-v1" / "ppo" / "run" for where in (whole, killed))
    acted = read_notes(sound).interventions
    assert {"halve", "rollback"} <= {x.action for x in acted}
    die = {"settings": settings | {"run_dir": str(killed)}, "die_at": acted[-1].update}
    assert run_child(interpreter, task | die, tmp_path) == -9
    assert run_child(interpreter, task | {"path": str(there), "resume": True}, tmp_path) == 0
    assert read_notes(there) == read_notes(sound)
    assert weights_sha256(there) == weights_sha256(sound)
    assert metrics_sha256(there) == metrics_sha256(sound)


class Far(gym.Env[Any, Any]):
    """Places in a line; the one at the end, which chance alone finds, pays 100, and nothing else pays."""

    def __init__(self, places: int) -> None:
        self.places, self.at, self.count = places, 0, 0
        self.observation_space = gym.spaces.Box(0.0, 1.0, (places,))
        self.action_space = gym.spaces.Discrete(2)

    def _seen(self) -> Any:
        return np.eye(self.places, dtype=np.float32)[self.at]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at = self.count = 0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        self.at = max(0, self.at + (1 if action else -1))
        there = self.at == self.places - 1
        return self._seen(), 100.0 if there else 0.0, there, self.count == 80, {}


@pytest.mark.parametrize("algo", ["a2c", "dqn", "ppo"])
def test_rewards_that_were_learned_from_are_seen(algo: Any, tmp_path: Path) -> None:
    """Rows of several places, so near that every batch holds a success."""
    found: dict[str, float] = {}

    def note(run: Run, record: Any) -> None:
        if isinstance(run.guard, Guard):
            found.update(run.guard.watches["policy"].reach.numbers())

    told: dict[str, Any] = SMALL | {"env_kwargs": {"places": 3}, "total_timesteps": 2_000, "seed": 1}
    if algo == "dqn":
        told["replay"] = {"learning_starts": 500}
    shoal.train(Far, algo=algo, callbacks=[note], run_dir=str(tmp_path), **told)
    assert found["rewards/spread"] == 100.0


@pytest.mark.slow
@pytest.mark.parametrize(("algo", "seed", "places"), [("a2c", 0, 22), ("impala", 1, 22), ("impala", 2, 26)])
def test_a_first_success_after_long_is_learned_from(algo: Any, seed: int, places: int, tmp_path: Path) -> None:
    """In these runs the first success comes after dozens of checks without one."""
    told: dict[str, Any] = {"env_kwargs": {"places": places}, "num_threads": 1, "total_timesteps": 60_000}
    result = shoal.train(Far, algo=algo, seed=seed, panel="none", run_dir=str(tmp_path), **told)
    assert result.greedy_return == 100.0
    assert read_notes(result.path).count == 0
