"""Recording: data sets hold what the environment really did, and Minari itself opens them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest

from shoal.algos import sac
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.memory.data_file import DataFile
from shoal.nets.actors import make_stochastic
from shoal.nets.network import ActorCriticNet, QNet
from shoal.nets.q_network import make_q_network
from shoal.run.evaluate import SEED_OFFSET, evaluate
from shoal.run.record import record
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("h5py")
MINARI = ["minari==0.5.4", "typer", "annotated-doc", "pydantic", "shellingham"]
"""What opening a data set imports, less what the project has."""
READ_IT = """
import json, sys
import minari
found = minari.load_dataset("Pendulum-v1/sac-v3")
assert found.spec.env_spec.id == "Pendulum-v1", found.spec
episodes = list(found.iterate_episodes())
env = found.recover_environment()
assert env.observation_space == found.observation_space and env.action_space == found.action_space
json.dump([
    [list(e.observations.shape), list(e.actions.shape), float(e.rewards.sum()), bool(e.truncations[-1])]
    for e in episodes
], sys.stdout)
"""


def pendulum(folder: Path, **settings: Any) -> Any:
    env = make("Pendulum-v1", 2)
    policy = make_stochastic(env.spec, ActorCriticNet(hidden=(8,)), 1)
    given: dict[str, Any] = {"episodes": 3, "algo": "sac", **settings}
    return record(policy, env, folder, acting=Acting(5), **given)


@pytest.mark.parametrize("greedy", [True, False])
def test_the_environment_did_the_same(tmp_path: Path, *, greedy: bool) -> None:
    """Gymnasium's own environment, from the same seed and through the recorded actions, row by row."""
    made = pendulum(tmp_path / "set", greedy=greedy)
    assert (made.episodes, made.steps) == (3, 600)
    spec = make("Pendulum-v1", 1).spec
    episodes = DataFile.find(tmp_path / "set").episodes(spec)
    for number, episode in enumerate(episodes[:2]):  # the first ones of both rows
        env = gym.make("Pendulum-v1")
        seen = [env.reset(seed=5 + SEED_OFFSET + number)[0]]
        for action, reward, terminated, truncated in zip(
            episode.actions, episode.rewards, episode.terminations, episode.truncations, strict=True
        ):
            obs, *came = env.step(action)[:4]
            seen.append(obs)
            assert came == [reward, terminated, truncated]
        np.testing.assert_array_equal(seen, episode.observations)
        assert episode.truncations[-1]


def test_greedy_episodes_are_those_of_an_evaluation(tmp_path: Path) -> None:
    made = pendulum(tmp_path / "set", episodes=4)
    env = make("Pendulum-v1", 2)
    policy = make_stochastic(env.spec, ActorCriticNet(hidden=(8,)), 1)
    assert made.mean_return == pytest.approx(evaluate(policy, env, episodes=4, acting=Acting(5)).mean)


def test_an_episode_that_is_cut(tmp_path: Path) -> None:
    """Each of 2 rows is cut after 30 steps; a third episode goes on from there."""
    made = pendulum(tmp_path / "set", max_steps=30)
    assert made.steps == 90
    first, _, third = DataFile.find(tmp_path / "set").episodes(make("Pendulum-v1", 1).spec)
    np.testing.assert_array_equal(third.observations[0], first.observations[-1])
    assert first.truncations.tolist() == [False] * 29 + [True]


def test_discrete_actions(tmp_path: Path) -> None:
    env = make("CartPole-v1", 3)
    made = record(make_q_network(env.spec, QNet(hidden=(8,)), 1), env, tmp_path / "a b", episodes=5, acting=Acting(1))
    file = DataFile.find(made.path)
    assert file.metadata["dataset_id"] == "a_b-v0"
    assert json.loads(file.metadata["env_spec"])["id"] == "CartPole-v1"
    episodes = file.episodes(env.spec)
    assert all(episode.terminations[-1] and episode.actions.dtype == np.int64 for episode in episodes)
    assert made.mean_return == np.mean([len(episode.rewards) for episode in episodes])


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    env = make("CartPole-v1", 1)
    with pytest.raises(AttributeError):
        record(sac, env, tmp_path / "set", episodes=1, acting=Acting(1))  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="must be at least 1"):
        pendulum(tmp_path / "set", episodes=0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_minari_opens_it(tmp_path: Path) -> None:
    """Minari, installed into a folder of its own, finds it by its id, with its environment and spaces."""
    packages = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", str(packages)]
    extra = ["annotated-types", "pydantic_core", "typing-inspection"]
    subprocess.run([*install, "-c", "constraints.txt", *MINARI, *extra], check=True)
    made = pendulum(tmp_path / "root/Pendulum-v1/sac-v3")
    paths = os.pathsep.join([*sys.path, str(packages)])
    variables = os.environ | {"PYTHONPATH": paths, "MINARI_DATASETS_PATH": str(tmp_path / "root")}
    command = [sys.executable, "-c", READ_IT]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row[:2] + row[3:] for row in found] == [[[201, 3], [200, 1], True]] * 3
    assert np.mean([row[2] for row in found]) == pytest.approx(made.mean_return)
