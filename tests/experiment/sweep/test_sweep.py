"""Whole sweeps in processes: what they leave, and what becomes of one that is killed, interrupted or hurt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w

from shoal.cli import sweep as command
from shoal.experiment.sweep.outcome import SweepResult
from shoal.experiment.sweep.sweep import show, sweep
from shoal.experiment.training import train
from shoal.types import EnvError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SMALL: dict[str, Any] = {
    "env": "CartPole-v1",
    "total_timesteps": 20_000,
    "sweep": {"trials": 4, "episodes": 5, "finalists": 2, "final_seeds": 1, "confirm_seeds": 1},
    "space": {"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}},
}
LONG = SMALL | {"total_timesteps": 100_000, "checkpoint_every": 8192}


def write(path: Path, table: dict[str, Any], **settings: Any) -> Path:
    whole = table | {"sweep": table["sweep"] | settings}
    path.write_text(tomli_w.dumps(whole))
    return path


def begin(file: Path, out: Path, log: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "shoal", "sweep", str(file), "--out", str(out), *options]
    with log.open("ab") as told:
        return subprocess.Popen(command, stdout=told, stderr=told, cwd=file.parent, start_new_session=True)


def wait_for(happened: Callable[[], bool], *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def ends_in(out: Path) -> dict[str, bytes]:
    """What finished trials have written, by their names."""
    return {path.name: path.read_bytes() for path in (out / "jobs").glob("[0-9]*.json")}


def checkpoints_of(out: Path, name: str) -> list[Path]:
    return list(out.glob(f"trials/*/*/{name}/checkpoints/*.json"))


def test_a_sweep_leaves_settings_to_train_with_pictures_and_a_summary(
    tmp_path: Path, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    found = sweep(SMALL, out=out, panel="none")
    assert isinstance(found, SweepResult)
    assert [row.state for row in found.trials] == ["complete"] * 4
    assert found.confirmed is False  # one seed confirms nothing
    told = json.loads((out / "summary.json").read_text())
    assert told["best_trial"] == found.best_trial
    assert told["best"] == dict(found.best)
    assert len(told["trials"]) == 4
    assert found.cost_s == pytest.approx(sum(row.seconds for row in found.trials))
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")
    best = train("CartPole-v1", config=found.best_config, run_dir=str(run_dir), panel="none", total_timesteps=5_000)
    saved = (best.path / "config.toml").read_text()
    if found.best:
        assert f"learning_rate = {found.best['learning_rate']}" in saved
    assert "num_threads = 0" in saved  # not the trial's
    again = sweep(SMALL, out=out, panel="none")
    assert [row.seconds for row in again.trials] == [row.seconds for row in found.trials]
    more = sweep(out, trials=5, panel="none")
    assert len(more.trials) == 5
    assert show(out).verdict == more.verdict
    assert command.main([str(out), "--show"], "") == 0
    assert f"winner: trial {more.best_trial}, the best of" in capsys.readouterr().out


def test_kill_9_loses_no_finished_trial_and_resumes_those_under_way(tmp_path: Path) -> None:
    file, out, log = write(tmp_path / "long.toml", LONG), tmp_path / "out", tmp_path / "log"
    process = begin(file, out, log)

    def is_between() -> bool:
        """Whether a trial has ended, and a later one has a checkpoint but no end."""
        ended = ends_in(out)
        late = [n for n in range(4) if f"{n:04d}.json" not in ended and checkpoints_of(out, f"{n:04d}-seed1")]
        return bool(ended and late)

    wait_for(is_between)
    before = ends_in(out)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(map(lives, family)), seconds=5)
    found = sweep(out, panel="none")
    after = ends_in(out)
    assert all(after[name] == told for name, told in before.items())
    assert len(found.trials) == 4
    assert [row.state for row in found.trials].count("failed") == 0
    complete = [row for row in found.trials if row.values]
    assert all(steps >= 100_000 for row in complete for steps in steps_of(out, row.number))


def lives(process: psutil.Process) -> bool:
    """Whether a process goes on; one that nobody has asked about yet does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def steps_of(out: Path, number: int) -> list[int]:
    told = json.loads((out / "jobs" / f"{number:04d}.json").read_text())
    return [run["steps"] for run in told["runs"]]


def test_ctrl_c_saves_checkpoints_and_the_same_command_goes_on(tmp_path: Path) -> None:
    file, out, log = write(tmp_path / "long.toml", LONG), tmp_path / "out", tmp_path / "log"
    process = begin(file, out, log)
    wait_for(lambda: bool(checkpoints_of(out, "0000-seed1")))
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert "goes on" in log.read_text()
    status = json.loads((next(out.glob("trials/*/*/0000-seed1")) / "run.json").read_text())
    assert status["state"] in ("stopped", "finished")
    assert begin(file, out, log).wait(200) == 0
    assert len(json.loads((out / "summary.json").read_text())["trials"]) == 4


def test_a_trial_that_is_killed_is_a_failed_one_and_the_others_go_on(tmp_path: Path) -> None:
    file, out, log = write(tmp_path / "long.toml", LONG), tmp_path / "out", tmp_path / "log"
    process = begin(file, out, log)
    wait_for(lambda: bool(checkpoints_of(out, "0000-seed1")))
    (server,) = psutil.Process(process.pid).children()
    server.children()[0].kill()
    assert process.wait(200) == 0
    states = [row["state"] for row in json.loads((out / "summary.json").read_text())["trials"]]
    assert states.count("failed") == 1
    assert "its process was ended by signal 9" in log.read_text()


def test_settings_that_blow_up_fail_with_their_error_and_cost(tmp_path: Path) -> None:
    space = {"learning_rate": {"choices": [0.003, 1e30]}}
    bad = SMALL | {"space": space, "sweep": SMALL["sweep"] | {"trials": 6, "max_failures": 6}}
    found = sweep(bad, out=tmp_path / "out", panel="none")
    failed = [row for row in found.trials if row.state == "failed"]
    assert failed
    assert all("FloatingPointError" in row.why and row.settings["learning_rate"] == 1e30 for row in failed)
    named = SMALL | {"env": "tests.experiment.sweep.test_sweep:raising", "num_envs": 2}
    broken = named | {"sweep": {"trials": 9, "max_failures": 2}}
    with pytest.raises(EnvError, match=r"2 trials in a row have failed, the first of them: trial \d: OSError: no such"):
        sweep(broken, out=tmp_path / "bad", panel="none")


def raising() -> Any:
    """An environment that breaks in its twentieth step."""
    import gymnasium as gym

    class Raising(gym.Wrapper[Any, Any, Any, Any]):
        """It breaks."""

        steps = 0

        def step(self, action: Any) -> Any:
            """Twenty times."""
            self.steps += 1
            if self.steps == 20:
                raise OSError("no such sensor")
            return self.env.step(action)

    return Raising(gym.make("CartPole-v1"))


@pytest.mark.timeout(400)
def test_trials_run_on_a_fleet(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    found = sweep(SMALL, out=tmp_path / "out", fleet="local", panel="none")
    assert [row.state for row in found.trials] == ["complete"] * 4
    assert found.best_config.exists()
