"""Training with steps that are inserted while it goes on: their share, metrics, resume, and where it is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shoal
from shoal.envs.registry import make
from shoal.memory.data_file import DataWriter, Episode

TINY: dict[str, Any] = {
    "num_envs": 2,
    "batch_size": 16,
    "num_steps": 4,
    "total_timesteps": 64,
    "data_fraction": 0.25,
    "panel": "none",
    "final_episodes": 0,
    "stop_at": np.inf,
    "checkpoint_every": 16,
}
REPLAY: dict[str, Any] = {"learning_starts": 16, "samples_per_insert": 16, "inserted_size": 500}


class Log:
    """A machine's log: with every line of metrics of some updates, 30 random steps of each of two machines."""

    episodes = False

    def __init__(self, *updates: int, stop: int = 0, kill: int = 0) -> None:
        self.updates, self.stop, self.kill = updates, stop, kill

    def __call__(self, run: Any, record: Any) -> None:
        if run.updates in self.updates:
            run.memory.insert(**steps(run.updates, 30))
        if run.updates == self.stop:
            run.stop("enough for now")
        if run.updates == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)


def steps(seed: int, count: int) -> dict[str, Any]:
    """Steps [count, 2] of two pendulums that random torques swing."""
    rng = np.random.default_rng(seed)
    rows = []
    for row in range(2):
        env = shoal.make_env("Pendulum-v1")
        seen, actions, rewards = [env.reset(seed=seed + row)[0]], rng.uniform(-2, 2, (count, 1)), []
        for action in actions:
            obs, reward, *_ = env.step(action.astype(np.float32))
            seen.append(obs)
            rewards.append(reward)
        rows.append((np.stack(seen), actions, np.array(rewards)))
    obs, action, reward = (np.stack(column, 1) for column in zip(*rows, strict=True))
    never = np.zeros(reward.shape, np.bool_)
    return {
        "obs": obs[:-1],
        "action": action,
        "reward": reward,
        "next_obs": obs[1:],
        "terminated": never,
        "truncated": never,
    }


def train(folder: Path, name: str, *callbacks: Any, algo: str = "sac", **settings: Any) -> shoal.Result:
    given: dict[str, Any] = {"network": {"hidden": (8,)}, "run_dir": folder, "name": name, "replay": REPLAY}
    return shoal.train("Pendulum-v1", algo=algo, callbacks=callbacks, **{**TINY, **given, **settings})


def weights(result: shoal.Result) -> torch.Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in result.policy.parameters()])


@pytest.mark.parametrize("algo", ["sac", *(pytest.param(name, marks=pytest.mark.slow) for name in ("td3", "ppo_sac"))])
def test_a_resumed_run_is_the_same(tmp_path: Path, algo: str) -> None:
    """The first insert is in the checkpoint, the second one comes after it."""
    more: dict[str, Any] = {"algo": algo, "n_step": 3, "replay": REPLAY | {"alpha": 0.6}}
    if algo == "ppo_sac":
        more["explorers"] = {"num_steps": 8, "num_minibatches": 1}
    whole = train(tmp_path, "whole", Log(10, 35), **more)
    lines = [json.loads(line) for line in (whole.path / "metrics.jsonl").read_text().splitlines()]
    assert {line["update"]: line["replay/inserted"] for line in lines}[10] == 0  # callbacks come after the line
    assert lines[-1]["replay/inserted"] == 120
    explored = 4 if algo == "ppo_sac" else 0  # rollouts of 8 steps of their one row, in 32
    assert lines[-1]["update"] == (64 - 16) * 16 // 16 + explored  # as many as without
    cut = train(tmp_path, "cut", Log(10, 35, stop=20), **more)
    resumed = shoal.resume(cut.path, panel="none", callbacks=[Log(10, 35)])
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = train(tmp_path, "whole", Log(10, 35))
    code = f"from tests.experiment.test_inserted import *; train(Path({str(tmp_path)!r}), 'cut', Log(10, 35, kill=42))"
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    resumed = shoal.resume(tmp_path / "Pendulum-v1/sac/cut", panel="none", callbacks=[Log(10, 35)])
    assert torch.equal(weights(resumed), weights(whole))


def test_a_log_of_a_machine(tmp_path: Path) -> None:
    """A data set that is inserted while the run goes on, its rate and units told."""
    pytest.importorskip("h5py")
    writer = DataWriter(tmp_path / "log", make("Pendulum-v1", 1).spec, {"rate_hz": 20, "units": ["1", "1", "rad/s"]})
    arrays, first = steps(1, 10), np.arange(10) < 0
    seen = np.concatenate([arrays["obs"][:, 0], arrays["next_obs"][-1:, 0]])
    writer.add(Episode(seen, arrays["action"][:, 0].astype(np.float32), arrays["reward"][:, 0], first, first))
    writer.close()
    found: dict[str, Any] = {}

    def insert(run: Any, record: Any) -> None:
        if run.updates != 3:
            return
        for name, asked in {"rate": {"rate_hz": 50}, "units": {"units": ["1", "1", "deg/s"]}}.items():
            try:
                run.memory.insert_data(tmp_path / "log", **asked)
            except shoal.ConfigError as error:
                found[name] = str(error)
        asked = {"rate_hz": 20, "units": ["1", "1", "rad/s"]}
        found["count"] = run.memory.insert_data(tmp_path / "log", **asked)
        found["total"] = run.memory.num_inserted
        found["run"] = run
        run.stop("seen")

    train(tmp_path, "run", insert)
    assert "has 20 steps a second, and the policy acts 50 times" in found["rate"]
    assert "has observations in 1, 1, rad/s, and the policy was trained in 1, 1, deg/s" in found["units"]
    assert (found["count"], found["total"]) == (10, 10)
    with pytest.raises(shoal.ConfigError, match=r"memory.insert: the run has ended"):
        found["run"].memory.insert(**steps(1, 10))


def test_room_that_nothing_came_to(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"replay.inserted_size made room .* and nothing was inserted"):
        train(tmp_path, "run", total_timesteps=24)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data_fraction": 1.0}, "data_fraction must be at least 0 and below 1"),
        ({"data_fraction": -0.1}, "data_fraction must be at least 0 and below 1"),
        ({"data_fraction": 0.0}, "inserted_size=500 makes room for steps that no batch would be drawn from"),
        ({"data_fraction": 0.01}, "data_fraction=0.01 of batch_size=16 is no whole transition"),
        ({"replay": REPLAY | {"inserted_size": 0}}, "data_fraction=0.25 would change nothing: set data too"),
        ({"replay": REPLAY | {"inserted_size": -1}}, "inserted_size"),
        ({"agents": 2}, "replay.inserted_size=500 makes room for is learned from by one agent; leave agents=2 out"),
        ({"preprocessing": {"reward_sign": True}}, "own rewards, which preprocessing would not change"),
        pytest.param(
            {"actors": 1, "replay": REPLAY | {"shards": True}},
            "no steps are inserted into memories of actors",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_cannot_work(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(shoal.ConfigError, match=said):
        train(tmp_path, "run", **settings)
    assert not list(tmp_path.rglob("checkpoints/*.json"))


def test_sequences_hold_states(tmp_path: Path) -> None:
    replay = {"inserted_size": 100}
    with pytest.raises(shoal.ConfigError, match=r"steps from outside hold no recurrent states; set replay.inserted"):
        shoal.train("shoal/Memory-v0", algo="r2d2", replay=replay, run_dir=tmp_path, panel="none")


@pytest.mark.parametrize(
    ("algo", "settings", "said"),
    [
        ("ppo", {"total_timesteps": 64, "num_steps": 8, "num_minibatches": 1}, "algorithms on rollouts have none"),
        ("dqn", {"total_timesteps": 1_040}, "set replay.inserted_size to as many as are to be kept"),
    ],
)
def test_a_run_that_takes_none(tmp_path: Path, algo: str, settings: dict[str, Any], said: str) -> None:
    def insert(run: Any, record: Any) -> None:
        run.memory.insert(obs=[], action=[], reward=[], next_obs=[], terminated=[], truncated=[])

    given: dict[str, Any] = {"run_dir": tmp_path, "panel": "none", "final_episodes": 0, "callbacks": [insert]}
    with pytest.raises(shoal.ConfigError, match=said):
        shoal.train("CartPole-v1", algo=algo, num_envs=2, network={"hidden": (8,)}, **settings, **given)
