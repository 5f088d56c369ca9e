"""A run that was killed before it wrote a status: what is said of it, and how it goes on. One that starts is not."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

import shoal
from shoal.cli import doctor as cli_doctor
from shoal.cli import pause as cli_pause
from shoal.cli import runs as cli_runs
from shoal.report.facts import Processors, facts_of
from shoal.report.run_table import state_of
from shoal.run import control
from shoal.run.directory import RunDirectory, list_runs
from shoal.types import ConfigError

STARTS = """
import sys, time, shoal

def policy(spec):
    print("made", flush=True)
    time.sleep(600)

small = {"num_envs": 1, "num_steps": 8, "total_timesteps": 8, "final_episodes": 0, "panel": "none", "algo": "a2c"}
if sys.argv[2] == "train":
    shoal.train("CartPole-v1", run_dir=sys.argv[1], policy=policy, **small)
else:
    shoal.resume(sys.argv[1], policy=policy, panel="none", total_timesteps=16)
"""
"""Never comes to its first rollout."""


class Small(nn.Module):
    """What the killed run would have come to."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two logits [B, 2] and a value [B]."""
        out = self.layer(obs)
        return out[:, :2], out[:, 2]


def policy(spec: Any) -> nn.Module:
    """In the place of the one that never came to an end."""
    del spec
    return Small()


def started(where: Path, how: str) -> "subprocess.Popen[bytes]":
    """A process that makes ready to train, and never does."""
    child = subprocess.Popen([sys.executable, "-c", STARTS, str(where), how], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"made\n"
    return child


def kill(child: "subprocess.Popen[bytes]") -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("runs")
    child = started(folder, "train")
    [run] = list_runs(folder)
    assert (state_of(run), control.is_starting(run), control.was_killed_at_start(run)) == ("starting", True, False)
    kill(child)
    return run


def test_it_is_shown_as_killed(killed: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    """By the table, the page, the doctor and what asks something of it."""
    assert state_of(killed) == "interrupted"
    cli_runs.main(["--run-dir", str(killed.path.parents[2])], "")
    assert "killed at its start" in capsys.readouterr().out
    facts = facts_of(killed, None, Processors())
    assert (facts.state, facts.reason, facts.orders) == ("interrupted", "killed at its start", [])
    cli_doctor.main([str(killed.path)], "")
    said = capsys.readouterr().out
    assert "its process is gone after 0 steps (killed, out of memory, or the machine stopped)" in said
    assert "there is no checkpoint: `shoal resume RUN` begins it at step 0" in said
    with pytest.raises(ConfigError, match="it is interrupted: its process was killed before it trained"):
        cli_pause.main([str(killed.path)], "")


def test_a_later_process_with_its_number_is_another(killed: RunDirectory) -> None:
    """The number and when it started are this process's own, or the number alone: only the first one starts."""
    path = killed.path / "starting"
    kept = path.read_bytes()
    here: dict[str, Any] = {
        "host": platform.node(),
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
    }
    for told, starts in ((here, True), (here | {"process_started": here["process_started"] - 60.0}, False)):
        path.write_text(json.dumps(told), encoding="utf-8")
        assert control.is_starting(killed) is starts
        os.utime(path, (1, 1))  # its process tells, however long it takes
        assert control.is_starting(killed) is starts
    path.write_bytes(kept)


@pytest.mark.parametrize("told", [b"", b"[]", b"{", b'{"pid": 1}', b'{"pid": "x", "host": 3}', b"9" * 9999, None])
def test_a_file_that_does_not_tell(told: bytes | None, killed: RunDirectory) -> None:
    """Of an earlier version, of a stranger or another machine: its age decides."""
    path = killed.path / "starting"
    kept = path.read_bytes()
    elsewhere = json.dumps(json.loads(kept) | {"host": "elsewhere"}).encode()
    path.write_bytes(elsewhere if told is None else told)
    assert control.is_starting(killed)
    long_ago = time.time() - 2 * control.STARTING_S
    os.utime(path, (long_ago, long_ago))
    assert control.was_killed_at_start(killed)
    path.write_bytes(kept)


def test_it_begins_at_step_0(killed: RunDirectory) -> None:
    """In words; then it is a run like others."""
    with pytest.warns(UserWarning, match="has no checkpoint: there is nothing to go on from, so it begins at step 0"):
        assert shoal.resume(killed.path, policy=policy, panel="none").steps == 8
    assert state_of(killed) == "finished"
    assert not (killed.path / "starting").exists()


def test_a_resumed_run_that_is_killed_there_stays_what_it_was(tmp_path: Path) -> None:
    """It has a status and a checkpoint, and goes on from it without a word."""
    small: dict[str, Any] = {"num_envs": 1, "num_steps": 8, "total_timesteps": 8, "panel": "none", "final_episodes": 0}
    path = shoal.train("CartPole-v1", algo="a2c", run_dir=tmp_path, **small).path
    run = RunDirectory(path)
    child = started(path, "resume")
    assert state_of(run) == "starting"
    kill(child)
    assert (state_of(run), control.was_killed_at_start(run)) == ("finished", False)
    assert shoal.resume(path, panel="none", total_timesteps=16).steps == 16
