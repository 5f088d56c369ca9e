"""Training on a data set: before the first step, beside the run's own steps, resumed, and where it is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shoal
from shoal.envs.registry import make
from shoal.memory.data_file import DataWriter, Episode

pytest.importorskip("h5py")
TINY: dict[str, Any] = {
    "num_envs": 2,
    "batch_size": 16,
    "num_steps": 4,
    "network": {"hidden": (8,)},
    "panel": "none",
    "final_episodes": 0,
    "stop_at": np.inf,
    "replay": {"learning_starts": 16, "samples_per_insert": 8},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """20 random episodes of CartPole."""
    env = shoal.make_env("CartPole-v1")
    writer = DataWriter(tmp_path / "data", make("CartPole-v1", 1).spec, {"dataset_id": "cartpole-v0"})
    rng = np.random.default_rng(1)
    for seed in range(20):
        seen, actions = [env.reset(seed=seed)[0]], []
        terminated = False
        while not terminated:
            actions.append(int(rng.integers(2)))
            obs, _, terminated, *_ = env.step(actions[-1])
            seen.append(obs)
        ends = np.arange(1, len(actions) + 1) == len(actions)
        writer.add(Episode(np.stack(seen), np.array(actions), np.ones(len(actions)), ends, ends & False))
    writer.close()
    return tmp_path / "data"


def train(folder: Path, name: str, **settings: Any) -> shoal.Result:
    given: dict[str, Any] = {
        "algo": "dqn",
        "data": folder,
        "run_dir": folder.parent / "runs",
        "name": name,
        **TINY,
        **settings,
    }
    return shoal.train("CartPole-v1", **given)


def weights(result: shoal.Result) -> torch.Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in result.policy.parameters()])


class StopAt:
    """Stops the run at an update."""

    episodes = False

    def __init__(self, update: int) -> None:
        self.update = update

    def __call__(self, run: Any, record: Any) -> None:
        if run.updates == self.update:
            run.stop("enough for now")


@pytest.mark.parametrize("update", [7, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_a_resumed_run_is_the_same(data: Path, update: int, alpha: float) -> None:
    """Stopped among the 20 updates on data alone, and after them."""
    replay = TINY["replay"] | {"alpha": alpha}
    settings: dict[str, Any] = {"offline_updates": 20, "total_timesteps": 80, "replay": replay}
    whole = train(data, "whole", **settings)
    assert json.loads((whole.path / "run.json").read_text())["updates"] == 20 + (80 - 16) * 8 // 16
    cut = train(data, "cut", callbacks=[StopAt(update)], **settings)
    assert json.loads((cut.path / "run.json").read_text())["updates"] == update
    resumed = shoal.resume(cut.path, panel="none")
    assert torch.equal(weights(resumed), weights(whole))


def test_data_alone(data: Path) -> None:
    """No environment step, and the weights depend on the data set."""
    run = train(data, "run", offline_updates=25, total_timesteps=0)
    status = json.loads((run.path / "run.json").read_text())
    assert (status["steps"], status["updates"], run.stop_reason) == (0, 25, "total_timesteps")
    assert len(status["data_sha256"]) == 64
    other = train(data, "other", offline_updates=25, total_timesteps=0, seed=2)
    assert not torch.equal(weights(run), weights(other))


def test_a_changed_data_set(data: Path) -> None:
    cut = train(data, "cut", callbacks=[StopAt(5)], offline_updates=20, total_timesteps=0)
    metadata = data / "data/metadata.json"
    metadata.write_text(metadata.read_text() + " ")
    with pytest.raises(shoal.ConfigError, match="the data set was changed since the checkpoint"):
        shoal.resume(cut.path, panel="none")
    shutil.rmtree(data)
    with pytest.raises(shoal.ConfigError, match="no data set at"):
        shoal.resume(cut.path, panel="none")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data": "nowhere"}, "no data set at nowhere"),
        ({"preprocessing": {"reward_sign": True}}, "own rewards, which preprocessing would not change"),
        ({"data_fraction": 1.0}, "data_fraction must be at least 0 and below 1"),
        ({"offline_updates": -1}, "offline_updates"),
        ({"total_timesteps": 0}, "total_timesteps must be >= 1"),
        (
            {"data": None, "total_timesteps": 0, "offline_updates": 5},
            "no step is taken, and no data set is learned from",
        ),
        ({"data": None, "offline_updates": 5}, "offline_updates=5 would change nothing: set data too"),
        ({"data": None, "data_fraction": 0.1}, "data_fraction=0.1 would change nothing: set data too"),
    ],
)
def test_what_cannot_work(data: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(shoal.ConfigError, match=said):
        train(data, "run", **{"total_timesteps": 80, **settings})
    assert not (data.parent / "runs/CartPole-v1").exists()


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_an_algorithm_without_a_memory(data: Path, algo: str) -> None:
    with pytest.raises(shoal.ConfigError, match=f"data='.*data' would not be learned from: {algo} has no replay"):
        shoal.train("CartPole-v1", algo=algo, data=data, run_dir=data.parent / "runs", panel="none")
    assert not (data.parent / "runs/CartPole-v1").exists()


def test_another_environment(data: Path) -> None:
    with pytest.raises(shoal.ConfigError, match="is not of MountainCar-v0: its observation space has"):
        shoal.train("MountainCar-v0", algo="dqn", data=data, run_dir=data.parent / "runs", panel="none")
