"""Normalized rewards: by numbers worked by hand, by plain loops on every backend and schedule, resumed and refused."""

from __future__ import annotations

import copy
import tomllib
from contextlib import closing
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import shoal
from shoal.envs.agents.tictactoe import TicTacToe
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.nets.policy import Network, make_policy
from shoal.run.log import read
from shoal.stream.rewards import Rewards
from shoal.stream.rollouts import rollouts
from shoal.stream.schedules import Overlap, Sync
from shoal.stream.self_play import SelfPlay, against
from shoal.types import ConfigError
from tests.counting import CountingPolicy, LateReset
from tests.run.test_resume import weights_sha256


def stream_of(env: Any, way: Any, rewards: Rewards | None, num_steps: int = 40) -> Any:
    """Rollouts of a policy that nobody trains: with and without normalization it does the same."""
    policy = make_policy(env.spec, Network(hidden=(8,)), 1)
    return rollouts(env, policy, num_steps=num_steps, schedule=way, acting=Acting(5), rewards=rewards)


def rewards_of(stream: Any, times: int) -> list[NDArray[np.float32]]:
    """The rewards [T, B] of so many rollouts."""
    found: list[NDArray[np.float32]] = []
    for _ in range(times):
        found.append(next(stream).reward.numpy().copy())
        stream.publish()
    return found


def normalized_by_loops(stream: Any, times: int, gamma: float) -> list[NDArray[np.float64]]:
    """What the rewards of a raw stream should become: every return kept, one variance of all of them."""
    running = [0.0] * stream.shape[1]
    returns: list[float] = []
    found: list[NDArray[np.float64]] = []
    for _ in range(times):
        steps = next(stream)
        for t, row in np.ndindex(*stream.shape):
            if steps.valid[t, row]:
                before = 0.0 if steps.start[t, row] else gamma * running[row]
                running[row] = before + float(steps.reward[t, row])
                returns.append(running[row])
        deviation = sqrt(np.var(returns) + 1e-8)
        found.append(np.clip(steps.reward.double().numpy() / deviation, -10, 10))
        stream.publish()
    return found


def test_by_hand() -> None:
    """Rewards of 1 at a discount of a half: returns 1, 1.5, nothing for the step that only resets, 1, 1.5."""
    policy: Any = CountingPolicy()
    stream = rollouts(LateReset(), policy, num_steps=5, rewards=Rewards(gamma=0.5))
    first, second = rewards_of(stream, 2)
    assert first.ravel().tolist() == pytest.approx([4, 4, 0, 4, 4])  # their variance is 1/16
    variance = (4 * 1 + 3 * 1.5**2) / 7 - (8.5 / 7) ** 2  # with 1, 1.5 and 1 of the second rollout
    assert second.ravel().tolist() == pytest.approx(np.array([0, 1, 1, 0, 1]) / sqrt(variance))


def test_rewards_are_clipped() -> None:
    """Returns that never differ have no deviation; the rewards end at 10."""
    stream = rollouts(LateReset(), CountingPolicy(), num_steps=5, rewards=Rewards(gamma=0.0))
    assert rewards_of(stream, 1)[0].ravel().tolist() == [10, 10, 0, 10, 10]


@pytest.mark.parametrize(
    ("env_id", "backend", "way"),
    [
        ("Pendulum-v1", "native", Sync()),
        ("Pendulum-v1", "native", Overlap()),
        ("Pendulum-v1", "serial", Sync()),
        ("LunarLander-v3", "serial", Overlap()),
        ("CartPole-v1", "vector", Sync()),
        pytest.param("CartPole-v1", "workers", Overlap(), marks=pytest.mark.slow),
    ],
)
def test_every_backend_and_schedule_equals_plain_loops(env_id: str, backend: str, way: Any) -> None:
    """Three rollouts with ends and cuts in them, from the same stream without normalization."""
    with closing(make(env_id, 4, backend=backend)) as env, closing(make(env_id, 4, backend=backend)) as other:
        expected = normalized_by_loops(stream_of(other, way, None), 3, gamma=0.9)
        for mine, theirs in zip(rewards_of(stream_of(env, way, Rewards(gamma=0.9)), 3), expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_games_of_turns_and_self_play() -> None:
    """The learner's own steps count alone; a restored stream goes on bit for bit."""

    def fresh(rewards: Rewards | None) -> Any:
        env = make(TicTacToe, 4)
        policy = make_policy(env.spec, Network(hidden=(8,)), 1)
        return against(SelfPlay(every=1), env, policy, num_steps=8, acting=Acting(3), rewards=rewards)

    stream = fresh(Rewards(gamma=0.9))
    found = rewards_of(stream, 2)
    state = copy.deepcopy(stream.state())
    found += rewards_of(stream, 2)
    for mine, theirs in zip(found, normalized_by_loops(fresh(None), 4, gamma=0.9), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    again = fresh(Rewards(gamma=0.9))
    rewards_of(again, 1)
    again.restore(state)
    for mine, theirs in zip(rewards_of(again, 2), found[2:], strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.usefixtures("few_greedy_episodes")
def test_a_resumed_run_equals_a_whole_one(algo: str, run_dir: Path) -> None:
    """Weights bit for bit; logged returns are the environment's own, and no rewards of another size change a weight."""
    shape: dict[str, Any] = {"num_envs": 4, "num_steps": 64, "total_timesteps": 8 * 4 * 64, "network": {"hidden": [8]}}
    shape |= {"num_minibatches": 4, "update_epochs": 2} if algo == "ppo" else {}
    shape |= {"stop_at": float("inf"), "panel": "none", "run_dir": run_dir, "algo": algo}

    def stop(run: Any, record: Any) -> None:
        if run.updates == 3:
            run.stop("three")

    plain: dict[str, Any] = shape | {"normalize_reward": True, "reward_scale": 1.0}
    whole = shoal.train("LunarLander-v3", name="whole", **plain)
    halves = shoal.train("LunarLander-v3", name="halves", callbacks=[stop], **plain)
    assert shoal.resume(halves.path, panel="none").steps == whole.steps
    assert weights_sha256(halves.path) == weights_sha256(whole.path)
    returns = [line["episode/return"] for line in read(whole.path / "metrics.jsonl") if "episode/return" in line]
    assert min(returns) < -100  # of whole landings, whose normalized rewards come to some tens
    quarter = shoal.train("LunarLander-v3", name="quarter", preprocessing={"reward_scale": 0.25}, **plain)
    for mine, theirs in zip(quarter.policy.parameters(), whole.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@dataclass(frozen=True)
class NoDiscount:
    """Settings without a gamma."""


def test_a_preset_s_scale_gives_way(run_dir: Path) -> None:
    """LunarLander's preset has one."""
    settings: dict[str, Any] = {"num_envs": 2, "num_steps": 8, "num_minibatches": 2, "total_timesteps": 16}
    run = shoal.train(
        "LunarLander-v3", normalize_reward=True, final_episodes=0, panel="none", run_dir=run_dir, **settings
    )
    saved = tomllib.loads((run.path / "config.toml").read_text())
    assert (saved["reward_scale"], saved["normalize_reward"]) == (1.0, True)


def test_what_does_not_apply_is_refused(run_dir: Path) -> None:
    """A scale beside the normalization, and an algorithm that knows no discount; no directory is left."""
    with pytest.raises(ConfigError, match=r"reward_scale=0.5 would change nothing: normalize_reward divides"):
        shoal.train("LunarLander-v3", normalize_reward=True, reward_scale=0.5, run_dir=run_dir, panel="none")
    own: Any = ModuleType("own_algorithm")
    own.Config, own.train = NoDiscount, lambda cfg, env, run: None
    with pytest.raises(ConfigError, match="own_algorithm has no setting gamma; set normalize_reward=False"):
        shoal.train("CartPole-v1", algo=own, normalize_reward=True, run_dir=run_dir, panel="none")
    assert list(run_dir.glob("*/*/*")) == []
