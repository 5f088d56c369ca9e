"""`check_env` with rows in processes: what does the same there passes, what depends on its process is found."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from shoal.check.check_env import check_env
from shoal.types import ConfigError
from tests import bad_envs
from tests.fork_server import Interpreter

HERE = os.getpid()


class Elsewhere(bad_envs.Good):
    """Another process gives other rewards."""

    home = HERE

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward + (os.getpid() != self.home), terminated, truncated, info


class Bound(bad_envs.Good):
    """Steps in the process alone that imported this."""

    home = HERE

    def move(self, action: Any) -> None:
        if os.getpid() != self.home:
            raise OSError("the port is taken")
        super().move(action)


def faults(report: Any) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in report.findings if finding.verdict != "ok"}


def made_here(kind: Any) -> Any:
    """A factory that processes get by value, so that `home` stays this one's number."""
    home = HERE

    def make() -> gym.Env[Any, Any]:
        env = kind()
        env.home = home
        return env

    return make


@pytest.mark.slow
def test_the_same_in_processes() -> None:
    report = check_env(bad_envs.Good, steps=300, backend="workers")
    assert faults(report) == {}, str(report)
    (said,) = [finding.says for finding in report.findings if finding.name == "workers"]
    assert re.fullmatch(r"8 rows in 2 processes do the same: [\d,]+ steps per second", said)
    assert report.speed is not None
    assert report.speed.workers > 0
    assert "workers" not in {finding.name for finding in check_env(bad_envs.Good, steps=50).findings}


def test_nested_and_masked() -> None:
    report = check_env(bad_envs.Nested, steps=100, backend="workers")
    assert faults(report) == {}, str(report)


def test_another_process_gives_something_else() -> None:
    report = check_env(made_here(Elsewhere), steps=200, backend="workers")
    assert faults(report) == {"workers": "error"}, str(report)
    (finding,) = report.errors
    told = r"in another process, after 1 steps from the same seed the reward of row 0 is ([\d.]+) instead of ([\d.]+)"
    reward = re.match(told, finding.says)
    assert reward is not None
    assert float(reward[1]) - float(reward[2]) == pytest.approx(1)
    assert "not on the process" in finding.advice


@pytest.mark.slow
def test_what_cannot_step_in_another_process() -> None:
    report = check_env(made_here(Bound), steps=200, backend="workers")
    assert faults(report) == {"workers": "error"}, str(report)
    said = report.errors[0].says
    assert re.match(
        r"make: row 0 at step 1 of its episode.* OSError: the port is taken, in test_check_workers\.py:\d+", said
    )
    assert said.endswith("in move, in a worker's process")


def test_command_and_bad_usage(tmp_path: Path, interpreter: Interpreter) -> None:
    with pytest.raises(ConfigError, match="rows of serial, of workers too, or of vector, got backend='native'"):
        check_env(bad_envs.Good, backend="native")
    done = interpreter.shoal("check-env", "CartPole-v1", "--backend", "workers", "--steps", "50", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"workers +ok +8 rows in 2 processes do the same", done.stdout)
