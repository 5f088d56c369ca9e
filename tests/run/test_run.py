"""The loop around an algorithm: when it stops, Ctrl-C, bad losses, evaluation beside training, full disks."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import shoal
from shoal.experiment import training
from shoal.experiment.experiment import Experiment
from shoal.experiment.session import evaluation_of
from shoal.learn import learner as learners
from shoal.report.panel import panel_of
from shoal.run import checkpoint
from shoal.run.directory import RunDirectory
from shoal.run.log import read
from shoal.stream.rollouts import Rollouts
from shoal.types import ConfigError, EnvError
from tests.learn.paths import PATHS
from tests.run.beats import Beats, every, linear, make_run, weights

if TYPE_CHECKING:
    from pathlib import Path

TINY: Any = {"num_envs": 8, "num_steps": 16, "total_timesteps": 8 * 16 * 20, "stop_at": float("inf")}
PPO: Any = TINY | {"algo": "ppo", "num_minibatches": 2, "update_epochs": 1, "panel": "none", "name": "run"}
A2C: Any = TINY | {"algo": "a2c", "panel": "none", "name": "run"}


def weights_sha256(path: Path) -> str:
    """The hash of a run's newest weights."""
    found = checkpoint.load(path / "checkpoints")
    assert found is not None
    digest = hashlib.sha256()
    for name, tensor in sorted(weights(found).items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def metrics(path: Path, *, without: tuple[str, ...] = ("time/", "speed/")) -> list[dict[str, Any]]:
    """The lines of metrics, less the clock's numbers."""
    return [{k: v for k, v in line.items() if not k.startswith(without)} for line in read(path / "metrics.jsonl")]


def status(path: Path) -> dict[str, Any]:
    """What run.json says."""
    return RunDirectory(path).read_status()


def test_ends_at_total_timesteps(tmp_path: Path) -> None:
    """The run ends with the first batch at or past total_timesteps, and its last state is saved."""
    run = make_run(tmp_path, total_timesteps=95)
    assert list(run.loop(Beats(1, [1.0]), linear())) == list(range(1, 11))
    assert run.stop_reason == "total_timesteps"
    found = checkpoint.load(tmp_path / "checkpoints")
    assert found is not None
    assert found.updates == 10
    assert status(tmp_path)["stop_reason"] == "total_timesteps"
    run.close()


@pytest.mark.parametrize(("num_envs", "updates"), [(8, 4), (150, 5)])
def test_stops_at_the_mean_of_a_whole_window(tmp_path: Path, num_envs: int, updates: int) -> None:
    """Returns of 9 and more from the first episode on: the run still waits for max(100, num_envs) episodes."""
    run = make_run(tmp_path, num_envs=num_envs, stop_at=9.0)
    batches = list(run.loop(Beats(30, [10.0]), linear()))
    assert len(batches) == updates
    assert run.stop_reason == "mean return 10.0 reached 9"
    run.close()


def test_window_forgets_old_episodes(tmp_path: Path) -> None:
    """50 episodes a batch with returns 0, 0, 8, 10: the means are -, 0, 4, 9, and 9 stops."""
    run = make_run(tmp_path, stop_at=9.0)
    assert len(list(run.loop(Beats(50, [0, 0, 8, 10]), linear()))) == 4
    assert run.mean_return == 9.0
    run.close()


def test_log_means_and_best(tmp_path: Path) -> None:
    """A line holds the mean of what was logged since the last one; the best checkpoint is that of the best mean."""
    run = make_run(tmp_path)
    learner = linear()
    policy: Any = learner.policy
    for number in run.loop(Beats(100, [1, 2, 5, 4, 3]), learner):
        run.log({"loss/a": number})
        run.log({"loss/a": torch.tensor(number + 1.0, requires_grad=True)})
        torch.nn.init.constant_(policy.bias, number)
    run.close()
    assert [line["loss/a"] for line in read(tmp_path / "metrics.jsonl")] == [n + 0.5 for n in range(1, 11)]
    best = checkpoint.load(tmp_path / "checkpoints", tag="best")
    assert best is not None
    assert (best.updates, weights(best)["bias"].item()) == (3, 3.0)
    assert len(checkpoint.rolling(tmp_path / "checkpoints")) == 3


def test_last_line_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a line every 4 updates, a run that ends after 10 has lines at 4, 8 and 10."""
    every(monkeypatch, log=4)
    run = make_run(tmp_path)
    for number in run.loop(Beats(1, [1.0]), linear()):
        run.log({"loss/a": number})
    run.close()
    lines = [(line["update"], line["loss/a"]) for line in read(tmp_path / "metrics.jsonl")]
    assert lines == [(4, 2.5), (8, 6.5), (10, 9.5)]


@pytest.mark.parametrize("left", [b"", b'{"step": 10, "update": 1, "loss/a": 2.0}\n'], ids=["lost", "another run's"])
def test_lost_and_strange_lines_are_said(left: bytes, tmp_path: Path) -> None:
    """Metrics that are shorter than the checkpoint says: the run goes on, says so, and takes none of another's."""

    def train(total: int) -> None:
        run = make_run(tmp_path, callbacks=[panel_of("none")], total_timesteps=total)
        for _ in run.loop(Beats(1, [1.0]), linear()):
            run.log({"loss/a": 1.0})
        run.close()

    train(50)
    (tmp_path / "metrics.jsonl").write_bytes(left)
    with pytest.warns(UserWarning, match="is not what this run wrote") as warned:
        train(100)
    told = "; all of its lines are kept"
    if left:
        told = ", and has neither this run's first line nor its last; its last line was moved to metrics.old.jsonl"
        assert (tmp_path / "metrics.old.jsonl").read_bytes() == left
    told = f"metrics.jsonl is not what this run wrote up to update 5: it has [0-9,]+ bytes less{told}"
    assert re.search(told, str(warned[0].message))
    assert (tmp_path / "metrics.old.jsonl").exists() == bool(left)
    assert [line["update"] for line in read(tmp_path / "metrics.jsonl")] == [6, 7, 8, 9, 10]


def press_ctrl_c(patch: pytest.MonkeyPatch, *, after: int, times: int = 1) -> list[str]:
    """Presses Ctrl-C in the update that follows `after` updates; returns the list of what the panel will be told."""
    real, left, told = Rollouts.publish, [times], list[str]()

    def publish(self: Rollouts) -> int:
        while self.version == after and left[0]:
            left[0] -= 1
            os.kill(os.getpid(), signal.SIGINT)
        return real(self)

    panel = panel_of("none")
    patch.setattr(panel, "warn", told.append)
    patch.setattr(training, "panel_of", lambda kind: panel)
    patch.setattr(Rollouts, "publish", publish)
    return told


@pytest.mark.parametrize(
    "settings",
    [PPO, pytest.param(PPO | {"native": False}, marks=pytest.mark.slow), A2C],
    ids=["ppo", "ppo in torch", "a2c"],
)
@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_interrupted_and_resumed_equals_uninterrupted(
    settings: Any, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in update 10 of 20, once or twice, then resume: weights and metrics equal the uninterrupted run's."""
    every(monkeypatch, log=4, save=3)
    whole = shoal.train("CartPole-v1", run_dir=tmp_path / "whole", **settings)
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        told = press_ctrl_c(patch, after=9, times=times)
        path = tmp_path / "cut" / "CartPole-v1" / settings["algo"] / "run"
        with pytest.raises(KeyboardInterrupt):
            shoal.train("CartPole-v1", run_dir=tmp_path / "cut", **settings)
        if times == 1:
            assert (status(path)["steps"], status(path)["reason"]) == (10 * 128, "Ctrl-C")
            assert [message.split()[0] for message in told] == ["Ctrl-C:", "stopped"]
    assert signal.getsignal(signal.SIGINT) is handler
    found = checkpoint.load(path / "checkpoints")
    assert found is not None
    assert found.updates == (10 if times == 1 else 9)
    assert status(path)["state"] == "stopped"
    resumed = shoal.resume(path, panel="none")
    assert status(path)["state"] == "finished"
    assert weights_sha256(resumed.path) == weights_sha256(whole.path)
    assert metrics(resumed.path) == metrics(whole.path)
    assert resumed.greedy_return == whole.greedy_return


class Rising(gym.Env[Any, Any]):
    """An environment whose reward becomes 3e38 after 400 steps: a float, but two of them are none."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.zeros(3, np.float32), 3e38 if self.steps > 400 else 1.0, self.steps % 5 == 0, False, {}


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("settings", [PPO, A2C], ids=["ppo", "a2c"])
@pytest.mark.parametrize("path", PATHS)
def test_loss_that_is_not_finite(settings: Any, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names update and step; nothing of the update is saved; the status says why; whatever way it learns."""
    if path == "native":
        monkeypatch.setattr(learners, "fused_of", lambda loss: None)
    settings = settings | {"native": path != "torch"}
    told = (
        r"update 26 at step 3,328: the loss or its gradient is not finite in any of \d gradient steps; "
        "the checkpoint of update 24 is kept; try a smaller"
    )
    settings = settings | {"total_timesteps": 8 * 16 * 60}
    with pytest.raises(FloatingPointError, match=told):
        shoal.train(Rising, run_dir=tmp_path, **settings)
    there = tmp_path / "Rising" / settings["algo"] / "run"
    assert status(there)["state"] == "failed"
    assert status(there)["reason"].startswith("FloatingPointError: update 26")
    found = checkpoint.load(there / "checkpoints")
    assert found is not None
    assert all(torch.isfinite(tensor).all() for tensor in weights(found).values())
    assert not torch.isnan(torch.tensor(list(read(there / "metrics.jsonl")[-1].values()))).any()


@pytest.mark.usefixtures("few_greedy_episodes")
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("settings", [PPO, pytest.param(A2C, marks=pytest.mark.slow)], ids=["ppo", "a2c"])
def test_evaluation_changes_no_bit_of_training(settings: Any, tmp_path: Path, *, native: bool) -> None:
    """Evaluation every 500 steps: its returns stand in the metrics; weights and other metrics are as without."""
    settings = settings | {"native": native}
    without = shoal.train("CartPole-v1", run_dir=tmp_path / "without", **settings)
    beside = shoal.train("CartPole-v1", run_dir=tmp_path / "beside", eval_every=500, eval_episodes=3, **settings)
    assert weights_sha256(without.path) == weights_sha256(beside.path)
    assert metrics(without.path) == metrics(beside.path, without=("time/", "speed/", "eval/"))
    evaluated = [line for line in metrics(beside.path) if "eval/return" in line]
    assert [line["step"] for line in evaluated] == [512, 1024, 1536, 2048, 2560]
    assert all(line["eval/return"] >= 8 and line["eval/std"] >= 0 for line in evaluated)


@pytest.mark.usefixtures("few_greedy_episodes")
def test_evaluation_survives_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted run evaluates at the same steps, with the same returns, as the uninterrupted one."""
    settings: Any = PPO | {"eval_every": 300, "eval_episodes": 2}
    whole = shoal.train("CartPole-v1", run_dir=tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, after=7)
        with pytest.raises(KeyboardInterrupt):
            shoal.train("CartPole-v1", run_dir=tmp_path / "cut", **settings)
    resumed = shoal.resume("cut", run_dir=str(tmp_path), panel="none")
    assert metrics(resumed.path) == metrics(whole.path)


def test_a_greedy_evaluation_stops_the_run(tmp_path: Path) -> None:
    """At the first evaluation after 300 steps: before there are 100 episodes. A higher `stop_at` goes on."""
    settings: Any = PPO | {"eval_every": 300, "eval_episodes": 2}
    run = shoal.train("CartPole-v1", run_dir=tmp_path, **settings | {"stop_at": 8.0})
    assert run.steps == 384
    assert status(run.path)["stop_reason"].startswith("greedy mean return ")
    assert shoal.resume(run.path, panel="none").steps == 384
    assert shoal.resume(run.path, panel="none", stop_at=501.0).steps == settings["total_timesteps"]


class Changing(gym.Env[Any, Any]):
    """Nothing to be seen, 10 steps, 1 for each action that is not the one before: chance has 4.5, the mode has 0."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,), np.float32), gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.last, self.steps = None, 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        reward = float(self.last is not None and action != self.last)
        self.last, self.steps = action, self.steps + 1
        return np.zeros(1, np.float32), reward, self.steps == 10, False, {}


CONFIRMED: Any = PPO | {"total_timesteps": 8 * 16 * 40, "learning_rate": 1e-5, "confirm_episodes": 4}


@pytest.mark.usefixtures("few_greedy_episodes")
def test_a_mean_return_that_greedy_episodes_do_not_confirm_ends_no_run(tmp_path: Path) -> None:
    """They come again after 100 new episodes, go on after a resume where they were, and change no bit of training."""

    def stop(run: Any, _: Any) -> None:
        if run.updates == 20:
            run.stop("twenty")

    without = shoal.train(Changing, run_dir=tmp_path / "without", **CONFIRMED | {"confirm_episodes": 0})
    whole = shoal.train(Changing, run_dir=tmp_path / "whole", **CONFIRMED | {"stop_at": 3.0})
    assert (whole.stop_reason, whole.steps) == ("total_timesteps", without.steps)
    assert weights_sha256(without.path) == weights_sha256(whole.path)
    assert metrics(without.path) == metrics(whole.path, without=("time/", "speed/", "eval/"))
    lines = metrics(whole.path)
    played = [number for number, line in enumerate(lines) if "eval/return" in line]
    assert len(played) >= 3
    assert all(lines[n]["episode/return"] >= 3 > lines[n]["eval/return"] for n in played)
    for last, now in zip([-1, *played], played, strict=False):
        since = lines[last]["episode/count"] if last >= 0 else 0
        assert lines[now]["episode/count"] >= since + 100 > lines[now - 1]["episode/count"]
    cut = shoal.train(Changing, run_dir=tmp_path / "cut", callbacks=[stop], **CONFIRMED | {"stop_at": 3.0})
    assert played[0] < 20 <= played[-1]
    assert metrics(shoal.resume(cut.path, panel="none", factory=Changing).path) == lines


def test_a_mean_return_that_greedy_episodes_confirm_ends_the_run(tmp_path: Path) -> None:
    """At once: after the first 100 episodes, and without any where `stop_at` is infinite."""
    run = shoal.train(Changing, run_dir=tmp_path, **CONFIRMED | {"stop_at": -0.5})
    assert run.stop_reason == "greedy mean return 0.0 reached -0.5"
    counts = [line["episode/count"] for line in read(run.path / "metrics.jsonl")]
    assert counts[-1] >= 100 > counts[-2]
    assert [line["step"] for line in read(run.path / "metrics.jsonl") if "eval/return" in line] == [run.steps]
    endless = Experiment.new("CartPole-v1", settings={"confirm_episodes": 4, "stop_at": float("inf")})
    assert evaluation_of(endless) is None


class Failing(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole that raises, or returns NaN, at its n-th step."""

    def __init__(self, at: int, *, nan: bool = False) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.left, self.nan = at, nan

    def step(self, action: Any) -> Any:
        self.left -= 1
        obs, reward, *rest = self.env.step(action)
        if self.left == 0 and not self.nan:
            raise RuntimeError("out of coffee")
        return obs * np.float32("nan" if self.left == 0 else 1), reward, *rest


@pytest.mark.parametrize("nan", [False, True])
def test_environment_that_fails_at_once_leaves_nothing(run_dir: Path, *, nan: bool) -> None:
    """The first step raises or returns NaN: the error arrives, and no directory is left, nor an empty one above."""
    with pytest.raises(EnvError if nan else RuntimeError, match=r"row 0 at step 1|out of coffee"):
        shoal.train(Failing, env_kwargs={"at": 1, "nan": nan}, run_dir=run_dir, **PPO)
    assert not run_dir.exists() or not list(run_dir.iterdir())


@pytest.mark.parametrize("nan", [False, True])
def test_environment_that_fails_later(run_dir: Path, *, nan: bool) -> None:
    """The 100th step of a row fails: the run's status says failed and why, and its checkpoints load."""
    with pytest.raises(EnvError if nan else RuntimeError) as caught:
        shoal.train(Failing, env_kwargs={"at": 100, "nan": nan}, run_dir=run_dir, **PPO)
    path = run_dir / "Failing" / "ppo" / "run"
    assert status(path)["state"] == "failed"
    assert status(path)["reason"] == f"{type(caught.value).__name__}: {caught.value}"
    assert (status(path)["updates"], status(path)["steps"]) == (6, 768)
    assert len(read(path / "metrics.jsonl")) == 6


def test_disk_full_at_a_checkpoint(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full at the third checkpoint: the error says what to do, the second one is whole, and resume ends."""
    real = checkpoint.write_atomic

    def write(path: Path, data: bytes) -> None:
        if path.stem == "0000000003":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(checkpoint, "write_atomic", write)
    with pytest.raises(OSError, match=r"checkpoint of update 3 was not written.*`shoal resume` once there is room"):
        shoal.train("CartPole-v1", run_dir=run_dir, **PPO)
    monkeypatch.undo()
    path = run_dir / "CartPole-v1" / "ppo" / "run"
    found = checkpoint.load(path / "checkpoints")
    assert found is not None
    assert (found.updates, status(path)["state"]) == (2, "failed")
    assert "No space left" in status(path)["reason"]
    shoal.resume(path, panel="none")
    whole = shoal.train("CartPole-v1", run_dir=run_dir / "whole", **PPO)
    assert weights_sha256(path) == weights_sha256(whole.path)


def test_small_disk(tmp_path: Path) -> None:
    """A real file system that fills up while training: an error soon, no hang, and what is there can be loaded."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with pytest.raises(OSError, match="shoal resume` once there is room") as caught:
            shoal.train("CartPole-v1", run_dir=tmp_path, **PPO | {"total_timesteps": 8 * 16 * 3000})
        assert caught.value.errno == errno.ENOSPC
        path = tmp_path / "CartPole-v1" / "ppo" / "run"
        assert shoal.load(path).act(np.zeros(4, np.float32)) in (0, 1)
        assert json.loads((path / "run.json").read_text())["steps"] > 0
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_resume_of_another_network(run_dir: Path) -> None:
    """A configuration edited to another network, number of rows, algorithm or environment: refused, with the reason."""
    path = shoal.train("CartPole-v1", run_dir=run_dir, **PPO).path
    text = (path / "config.toml").read_text()
    for old, new, told in (
        ("    64,\n    64,\n", "    32,\n", r"network\.hidden is \[32\], trained with \[64, 64\]"),
        ('recurrent = "none"', 'recurrent = "gru"', "network.recurrent is 'gru', trained with 'none'"),
        ("num_envs = 8", "num_envs = 16", "belongs to num_envs '8', not '16'"),
        ('env = "CartPole-v1"', 'env = "Acrobot-v1"', "belongs to env 'CartPole-v1', not 'Acrobot-v1'"),
    ):
        assert old in text
        (path / "config.toml").write_text(text.replace(old, new))
        with pytest.raises(ConfigError, match=told):
            shoal.resume(path, panel="none")
    (path / "config.toml").write_text(text)
    assert shoal.resume(path, panel="none").steps == 2560
