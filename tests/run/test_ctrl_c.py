"""Ctrl-C while rows take their time: the run ends soon, and goes on later as if nothing had happened."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from shoal.run import checkpoint
from shoal.run.log import read
from tests.run.test_resume import weights_sha256

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fork_server import Interpreter

CHILD = """
import json, os, signal, sys, threading, time
from shoal.experiment import training
from shoal.experiment.training import resume, train
from shoal.run.loop import Loop

task = json.loads(sys.argv[1])
write = Loop._write_line
pressed = []

def press():
    pressed.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

def write_then_press(self):
    write(self)
    if self.run.updates == task["press_at"]:
        threading.Timer(task["after_s"], press).start()

Loop._write_line = write_then_press
training.GREEDY_EPISODES = 2  # training is what is compared
try:
    if task["resume"]:
        resume(task["path"], panel="none")
    else:
        train(task["env"], panel="none", name="run", stop_at=1e9, **task["settings"])
except KeyboardInterrupt:
    with open(task["told"], "w") as file:
        file.write(str(time.monotonic() - pressed[0]))
"""
BOUND_S = 5.0


def metrics_of(path: Path) -> list[dict[str, float]]:
    """All but the clock's."""
    timed = ("time/", "speed/", "actors/")
    return [{k: v for k, v in line.items() if not k.startswith(timed)} for line in read(path / "metrics.jsonl")]


PPO: dict[str, Any] = {
    "algo": "ppo",
    "num_steps": 16,
    "num_minibatches": 2,
    "update_epochs": 2,
    "total_timesteps": 4 * 16 * 6,
}
DQN: dict[str, Any] = {"algo": "dqn", "num_steps": 8, "batch_size": 16, "total_timesteps": 4 * 8 * 12}
DQN["replay"] = {"buffer_size": 400, "learning_starts": 100, "samples_per_insert": 0.5}
SAC = DQN | {"algo": "sac", "num_steps": 16, "act_block": 2, "total_timesteps": 4 * 16 * 6}
CASES: list[dict[str, Any]] = [
    PPO | {"actors": 2},
    PPO | {"actors": 2, "schedule": "async", "max_staleness": 0},
    PPO | {"actors": 0, "schedule": "overlap"},
    DQN | {"actors": 2},
    DQN | {"actors": 2, "replay": DQN["replay"] | {"shards": True}},
    DQN | {"actors": 0},
    SAC | {"actors": 2, "schedule": "async", "max_staleness": 0},
]


def said(case: dict[str, Any]) -> str:
    """Its name."""
    shards = "-shards" if "shards" in case.get("replay", {}) else ""
    return f"{case['algo']}-{case['actors']}-{case.get('schedule', 'sync')}{shards}"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=said)
def test_ctrl_c_in_the_middle_of_a_rollout(case: dict[str, Any], tmp_path: Path, interpreter: Interpreter) -> None:
    """Rollouts of some seconds: none is waited for. Weights and metrics equal those of a run that nobody stopped."""
    env = "tests.stream.slow_env:Slow" + ("Continuous" if case["algo"] == "sac" else "")
    settings: dict[str, Any] = {"seed": 7, "num_envs": 4, "final_episodes": 0} | case
    told = tmp_path / "told"
    task = {"env": env, "press_at": -1, "after_s": 0.3, "resume": False, "told": str(told)}

    def run(folder: Path, **changed: Any) -> Path:
        slow = {"env_kwargs": {"step_s": 0.1}} if "press_at" in changed else {}
        own = task | {"settings": settings | slow | {"run_dir": str(folder)}} | changed
        assert interpreter.run(CHILD, json.dumps(own), folder=tmp_path).returncode == 0
        (path,) = folder.rglob("run.json")
        return path.parent

    whole = run(tmp_path / "whole")
    cut = run(tmp_path / "cut", press_at=2)
    assert float(told.read_text()) < BOUND_S
    found = checkpoint.load(cut / "checkpoints")
    assert found is not None
    assert found.updates == 2
    text = json.dumps(found.tree["stream"], default=lambda _: None)
    assert '"under_way"' in text
    told.unlink()
    run(tmp_path / "cut", resume=True, path=str(cut))
    assert not told.exists()
    assert weights_sha256(whole) == weights_sha256(cut)
    assert metrics_of(whole) == metrics_of(cut)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_ctrl_c_with_actors_in_threads(schedule: str, tmp_path: Path, interpreter: Interpreter) -> None:
    """Native rollouts of some tenths of a second: the calls at hand are over first, and nothing of theirs is lost."""
    settings: dict[str, Any] = {"seed": 7, "num_envs": 4, "final_episodes": 0, "algo": "a2c", "num_steps": 100_000}
    settings |= {"actors": 2, "actors_in": "threads", "schedule": schedule, "total_timesteps": 4 * 100_000 * 8}
    if schedule == "async":
        settings["max_staleness"] = 0
    told = tmp_path / "told"
    task = {"env": "CartPole-v1", "press_at": -1, "after_s": 0.05, "resume": False, "told": str(told)}

    def run(folder: Path, **changed: Any) -> Path:
        own = task | {"settings": settings | {"run_dir": str(folder)}} | changed
        assert interpreter.run(CHILD, json.dumps(own), folder=tmp_path).returncode == 0
        (path,) = folder.rglob("run.json")
        return path.parent

    whole = run(tmp_path / "whole")
    cut = run(tmp_path / "cut", press_at=2)
    assert float(told.read_text()) < BOUND_S
    found = checkpoint.load(cut / "checkpoints")
    assert found is not None
    assert 2 <= found.updates < 8
    told.unlink()
    run(tmp_path / "cut", resume=True, path=str(cut))
    assert weights_sha256(whole) == weights_sha256(cut)
    assert metrics_of(whole) == metrics_of(cut)
