"""Several learners as processes: one command, one result, and what follows where one of them fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
import torch

from shoal.experiment.training import resume, train
from shoal.run.checkpoint import load
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from shoal.experiment.result import Result
    from shoal.run.run import Run

SMALL: dict[str, Any] = {
    "learners": 2,
    "num_envs": 8,
    "num_steps": 16,
    "num_minibatches": 2,
    "update_epochs": 2,
    "preset": "none",
    "num_threads": 1,
    "final_episodes": 0,
    "panel": "none",
    "stop_at": float("inf"),
}
UPDATE = 8 * 16
"""Environment steps of an update."""


def trained(path: Path, updates: int, **settings: Any) -> Result:
    """A short run of two learners."""
    told: dict[str, Any] = SMALL | {"total_timesteps": updates * UPDATE, "run_dir": str(path)} | settings
    return train("CartPole-v1", **told)


def weights(policy: nn.Module) -> torch.Tensor:
    """All weights and statistics."""
    return torch.cat([x.double().flatten() for x in policy.state_dict().values()])


def lines(result: Result) -> list[dict[str, Any]]:
    """The metrics that no clock decides."""
    read = [json.loads(line) for line in (result.path / "metrics.jsonl").read_text().splitlines()]
    return [{name: x for name, x in line.items() if not name.startswith(("time/", "speed/"))} for line in read]


def children() -> list[psutil.Process]:
    """The learners beside this one, and what supervises them; other tests may have left processes of their own."""
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [process] if "learner_process" in " ".join(process.cmdline()) else []
    return found


class Late:
    """A callback that does something once, when so many updates are over."""

    def __init__(self, update: int, what: Any) -> None:
        self.update, self.what = update, what

    def __call__(self, run: Run, record: Any) -> None:
        if isinstance(record, dict) and self.update and record["update"] >= self.update:
            self.update = 0
            self.what()


def to_learner(number: int) -> Any:
    """Sends a signal to the learner beside this one."""

    def send() -> None:
        inner = [process for process in children() if not process.children()]
        inner[0].send_signal(number)

    return send


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    """Joined minibatches, normalized observations, all episodes: weights and metrics to float tolerance."""
    same: dict[str, Any] = {"num_minibatches": 1, "network": {"normalize_obs": True}}
    two = trained(tmp_path, 4, **same)
    one = trained(tmp_path, 4, **same | {"learners": 1})
    assert two.steps == one.steps == 4 * UPDATE
    torch.testing.assert_close(weights(two.policy), weights(one.policy), rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(lines(two), lines(one), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    assert not children()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"algo": "a2c", "normalize_reward": True}, {"network": {"recurrent": "gru"}}])
def test_a_run_that_is_resumed_equals_one_that_is_not(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Bit for bit: both learners' rows, noise and random numbers go on."""
    if "algo" in settings:
        settings = dict.fromkeys(("num_minibatches", "update_epochs"), None) | settings
    chosen = {name: x for name, x in (SMALL | settings).items() if x is not None}

    def run(folder: str, *callbacks: Any) -> Result:
        told: dict[str, Any] = chosen | {"total_timesteps": 12 * UPDATE, "run_dir": str(tmp_path / folder)}
        return train("CartPole-v1", **told, callbacks=callbacks)

    def stop(run: Run, record: Any) -> None:
        if run.updates == 7:
            run.stop("that is enough")

    whole = run("whole")
    half = run("half", stop)
    assert half.steps == 7 * UPDATE
    rest = resume(half.path, panel="none")
    assert torch.equal(weights(rest.policy), weights(whole.policy))
    assert lines(rest)[-1] == lines(whole)[-1]
    found = load(rest.path / "checkpoints")
    assert found is not None
    assert set(found.tree["ranks"]) == {"1"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGSTOP, "said nothing for 5 s; it is stop")],
)
def test_a_learner_that_dies_or_hangs_is_named(tmp_path: Path, number: int, said: str) -> None:
    """With its number, process and rows; the run ends soon, and can go on."""
    begun = time.monotonic()
    with pytest.raises(EnvError, match=r"learner 1 \(pid \d+, rows 4\.\.7\), learning, " + said):
        trained(tmp_path, 10_000, callbacks=[Late(3, to_learner(number))], step_timeout_s=5.0)
    assert time.monotonic() - begun < 60
    assert not children()


class Fails(gym.Env[Any, Any]):
    """Raises in its hundredth step, in every process but the first."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    here = os.getpid()

    def __init__(self) -> None:
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.steps == 100 and "SHOAL_FIRST" not in os.environ:
            raise ZeroDivisionError("the hundredth step")
        return np.zeros(2, np.float32), 1.0, self.steps % 10 == 0, False, {}


@pytest.mark.slow
def test_what_a_learner_raises_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception itself, with the process and its traceback."""
    told: dict[str, Any] = SMALL | {"total_timesteps": 10_000, "run_dir": str(tmp_path)}

    def first() -> None:
        monkeypatch.setenv("SHOAL_FIRST", "1")

    with pytest.raises(ZeroDivisionError, match="the hundredth step") as caught:
        train(Fails, **told, callbacks=[Late(1, first)])
    assert any("in learner 1, pid" in note for note in caught.value.__notes__)
    assert not children()


SCRIPT = """
import sys
from shoal.experiment.training import train
train("CartPole-v1", learners=2, num_envs=8, num_steps=16, total_timesteps=10**8, run_dir=sys.argv[1], panel="plain",
      stop_at=float("inf"), checkpoint_every=128 * 10, num_threads=1)
"""


def started(path: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A long run in another process, and its children, once it has a checkpoint."""
    run = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(path.rglob("0*.json")) and time.monotonic() < end:
        time.sleep(0.1)
    return run, psutil.Process(run.pid).children(recursive=True)


@pytest.mark.slow
def test_nothing_outlives_the_first_learner(tmp_path: Path) -> None:
    """Killed by force, it takes the others along; the run goes on from its checkpoint."""
    run, others = started(tmp_path)
    assert len(others) == 2, "a supervisor and its learner"
    run.kill()
    _, alive = psutil.wait_procs(others, 10)
    assert not alive
    run.communicate()
    at = next(tmp_path.rglob("config.toml")).parent
    found = load(at / "checkpoints")
    assert found is not None
    again = resume(at, total_timesteps=(found.updates + 2) * UPDATE, panel="none", final_episodes=0)
    assert again.steps >= (found.updates + 2) * UPDATE


@pytest.mark.slow
def test_ctrl_c_ends_all_learners_with_a_checkpoint(tmp_path: Path) -> None:
    """After the update at hand, as of one learner."""
    run, others = started(tmp_path)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    _, alive = psutil.wait_procs(others, 10)
    assert not alive
    at = next(tmp_path.rglob("run.json"))
    status = json.loads(at.read_text())
    assert (status["state"], status["stop_reason"]) == ("stopped", "interrupted")
    found = load(at.parent / "checkpoints")
    assert found is not None
    assert found.updates == status["updates"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learners": 3}, "num_envs=8 environments do not divide among learners=3; num_envs=6 or 9 would"),
        ({"agents": 2}, "learners=2 do not go with agents yet"),
        ({"actors": 2}, "learners=2 do not go with actors yet"),
        ({"schedule": "async"}, 'learners=2 do not go with schedule="async" yet'),
        ({"fleet": "local"}, "learners=2 do not go with fleet yet"),
        ({"curiosity": {"coef": 0.1}}, "learners=2 do not go with curiosity.coef yet"),
        ({"algo": "dqn"}, "learners=2 share rollouts, and dqn learns from a replay memory"),
        ({"algo": "bc", "offline_updates": 10}, "a data set is learned from by one"),
    ],
)
def test_what_learners_cannot_share_is_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    told: dict[str, Any] = {"learners": 2, "num_envs": 8, "run_dir": str(tmp_path), "panel": "none"}
    with pytest.raises(ConfigError, match=said):
        train("CartPole-v1", **told | settings)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    """An environment that holds a lock; no process was started, and no directory is left."""
    lock = threading.Lock()

    def made() -> gym.Env[Any, Any]:
        with lock:
            return gym.make("CartPole-v1")

    told: dict[str, Any] = SMALL | {"total_timesteps": 1000, "run_dir": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"cannot be sent to other learners: TypeError: .*; set learners=1"):
        train(made, **told)
    assert not list(tmp_path.rglob("config.toml"))
    assert not children()
