"""Fleets on Ray, each in a process of its own: equal runs, lost nodes, refusals, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
RAYS = ("raylet", "gcs_server", "ray::", "fleet/reaper.py", "ray/_private", "ray/dashboard", "ray/autoscaler")


def left_behind() -> list[str]:
    """Ray's processes, and ours beside them."""
    found: list[str] = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if any(part in command for part in RAYS):
            found.append(command[:100])
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """Neither processes nor folders, a few seconds after a test."""
    before = {*Path("/tmp").glob("shoal-*")}, left_behind()
    yield
    deadline = time.monotonic() + 20
    while len(left_behind()) > len(before[1]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(left_behind()) <= len(before[1]), left_behind()
    assert not {path for path in Path("/tmp").glob("shoal-*/r") if path.parent not in before[0]}
    assert not [*(tmp_path / "state").rglob("fleets/*.json")]


def environment(folder: Path) -> dict[str, str]:
    """Of the process: a token of its own, and a state folder."""
    token = folder / "token"
    token.write_text("t" * 40)
    given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "XDG_STATE_HOME": str(folder / "state")}
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | given


def begin(case: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.fleet.on_ray", case, str(folder)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(folder), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def found_by(case: str, folder: Path) -> dict[str, Any]:
    process = begin(case, folder)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return json.loads((folder / "found.json").read_text())


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Of another terminal."""
    return subprocess.run(
        [sys.executable, "-m", "shoal", *arguments],
        cwd=folder,
        env=environment(folder) | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_a_run_on_a_fleet_equals_one_without(tmp_path: Path) -> None:
    found = found_by("equal", tmp_path)
    assert found["CartPole-v1 None"] == found["CartPole-v1 local"]
    assert found["Counting None"] == found["Counting local"]


def test_a_node_is_killed_in_the_middle(tmp_path: Path) -> None:
    """Training goes on within 20 s, with its servers elsewhere, and comes to what it comes to otherwise."""
    found = found_by("lost", tmp_path)
    assert found["killed"]
    assert found["longest_s"] < 20
    assert found["steps"] >= 100_000
    assert found["return"] >= 0.8 * found["whole"]


def test_actors_on_a_fleet_equal_those_of_this_machine(tmp_path: Path) -> None:
    """Weights, returns, staleness and steps of four."""
    found = found_by("actors", tmp_path)
    assert found["None"] == found["local"]


def test_a_node_with_an_actor_is_killed_in_the_middle(tmp_path: Path) -> None:
    """Of PPO, and of three agents of DQN: another actor takes the rows over, within 20 s."""
    found = found_by("lost_actors", tmp_path)
    for algo, said in found.items():
        assert said["killed"], algo
        assert said["longest_s"] < 20, said
        assert said["return"] >= 0.7 * said["whole"], said


def test_a_node_with_a_shard_is_killed_in_the_middle(tmp_path: Path) -> None:
    """Three agents of DQN on two shards: one is lost with its steps, and training goes on within 20 s."""
    (said,) = found_by("lost_shards", tmp_path).values()
    assert said["killed"]
    assert said["steps_lost"] > 0
    assert said["steps"] >= 16_000
    assert said["longest_s"] < 20, said
    assert said["return"] >= 0.7 * said["whole"], said


def test_what_cannot_be_placed_is_refused_in_bounded_time(tmp_path: Path) -> None:
    found = found_by("refused", tmp_path)
    assert "no room for 4 servers of 1 CPU each: free are 1 CPU of 1 CPU" in found["room"][0]
    assert "1 servers of 1 CPU, 1 envs each" in found["resource"][0]
    assert "NoSuch-v0" in found["environment"][0]
    assert "Ray: 2" in found["version"][0]
    assert "Ray: 1.2.3 Python: 3.9.1" in found["version"][0]
    assert max(seconds for _, seconds in found.values()) < 30


def wait_for_servers(folder: Path) -> str:
    deadline = time.monotonic() + 60
    while True:
        shown = command(folder, "fleet", "status")
        if shown.returncode == 0 and shown.stdout.count("127.0.0.1:") == 2:
            return shown.stdout
        assert time.monotonic() < deadline, shown.stdout + shown.stderr


def test_another_terminal_sees_and_ends_it(tmp_path: Path) -> None:
    process = begin("endless", tmp_path)
    shown = wait_for_servers(tmp_path)
    assert "server-0" in shown
    assert "3 environments" in shown
    assert "ppo on CartPole-v1" in shown
    logs = command(tmp_path, "fleet", "logs")
    assert logs.stdout.count("serves 3 environments at 127.0.0.1:") == 2
    stopped = command(tmp_path, "fleet", "stop")
    assert stopped.returncode == 0
    assert "has ended after its update" in stopped.stdout
    said, _ = process.communicate(timeout=30)
    assert json.loads((tmp_path / "found.json").read_text()) == {"ended": True}, said
    again = command(tmp_path, "fleet", "status")
    assert (again.returncode, again.stdout.strip().partition(";")[0]) == (1, "no fleet runs here")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [2.5, 12.0])
def test_a_learner_that_is_ended_leaves_nothing(number: int, after_s: float, tmp_path: Path) -> None:
    """While Ray starts, and while it trains."""
    process = begin("endless", tmp_path)
    try:
        time.sleep(after_s)
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()


def test_runs_to_compare_are_trained_side_by_side(tmp_path: Path) -> None:
    """One that is killed is begun again, which is said."""
    (tmp_path / "frail.py").write_text(FRAIL)
    settings = 'env = "frail:Frail"\ntotal_timesteps = 4000\nnum_envs = 4\nfinal_episodes = 2\n'
    (tmp_path / "a.toml").write_text(settings)
    arguments = ("compare", "a.toml", "--seeds", "2", "--fleet", "local", "--trust")
    done = command(tmp_path, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "begun again (1 of 2)" in done.stdout
    assert done.stdout.count("trained a.toml, seed") == 2
    wide = command(tmp_path, *arguments[:2], "--seeds", "3", *arguments[4:], "--cpus", "99")
    assert wide.returncode == 2
    assert "no room for a run with 99 CPU" in wide.stderr


FRAIL = """
import os

import gymnasium as gym


class Frail(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 100 and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), 9)
        return self.observation_space.sample(), 1.0, self.steps % 20 == 0, False, {}
"""
