"""Pausing: within a second nothing steps and nothing learns, and later all goes on with the same bits."""

from __future__ import annotations

import json
import os
import shutil
import time
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal.experiment.training import resume
from shoal.run import control
from shoal.run.directory import RunDirectory
from shoal.run.log import read
from shoal.types import ConfigError
from tests.run.pausing import Pauser
from tests.run.test_ctrl_c import metrics_of
from tests.run.test_resume import weights_sha256

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOTICED_S = 2.0
"""A second, and one more where the machine has other work."""
IDLE = 0.15
"""Processor seconds a second, which are read in steps of 0.01 s over 0.4 s; a thread that spins takes 1."""
SLOW = "tests.stream.slow_env:Slow"
PPO: dict[str, Any] = {"algo": "ppo", "num_envs": 4, "num_steps": 16, "num_minibatches": 2, "update_epochs": 2}
DQN: dict[str, Any] = {"algo": "dqn", "num_envs": 4, "num_steps": 8, "batch_size": 16}
DQN["replay"] = {"buffer_size": 400, "learning_starts": 100, "samples_per_insert": 0.5}
NATIVE: dict[str, Any] = {"env": "CartPole-v1", **PPO, "num_steps": 64}


def slow(**settings: Any) -> dict[str, Any]:
    """Rollouts of some 0.2 s."""
    return {"env": SLOW, "env_kwargs": {"step_s": 0.003}, **PPO, **settings}


def trained(folder: Path, case: dict[str, Any], *, updates: int = 4, **given: Any) -> Path:
    """The directory of a run of so many updates."""
    steps = updates * case.get("num_envs", 1) * case.get("num_steps", 1)
    common: dict[str, Any] = {"seed": 7, "panel": "none", "stop_at": float("inf"), "final_episodes": 0}
    settings: Any = common | {"total_timesteps": steps, "run_dir": str(folder)} | case | given
    return shoal.train(settings.pop("env"), **settings).path


@pytest.fixture(scope="module")
def never_paused(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Path]:
    """The directory of a run that nobody paused, trained once for all tests that compare with it."""
    found: dict[str, Path] = {}

    def whole(case: dict[str, Any]) -> Path:
        key = repr(case)
        if key not in found:
            found[key] = trained(tmp_path_factory.mktemp("whole"), case)
        return found[key]

    return whole


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(NATIVE, id="native"),
        pytest.param(slow(), id="serial"),
        pytest.param(slow(backend="workers", num_workers=2), id="workers", marks=pytest.mark.slow),
    ],
)
def test_paused_equals_never_paused(
    case: dict[str, Any], tmp_path: Path, never_paused: Callable[[dict[str, Any]], Path]
) -> None:
    """Weights and metrics are the same; nobody worked meanwhile, and the time does not count."""
    whole = never_paused(case)
    pauser = Pauser(after_s=0.0 if case is NATIVE else 0.05)
    path = trained(tmp_path / "paused", case, callbacks=[pauser])
    pauser.joined()
    assert pauser.noticed_s < NOTICED_S
    assert pauser.went_on_s < NOTICED_S
    assert pauser.status["paused_by"]
    assert abs(pauser.status["paused_at"] - time.time()) < 60
    assert pauser.busy < IDLE
    assert weights_sha256(whole) == weights_sha256(path)
    assert metrics_of(whole) == metrics_of(path)
    assert not (path / "pause").exists()
    status = RunDirectory(path).read_status()
    assert status["state"] == "finished"
    assert "paused_by" not in status
    usage, *_, last = status["usage"], *read(path / "metrics.jsonl")
    assert usage["paused_s"] > pauser.hold_s
    assert last["time/elapsed"] < usage["wall_s"] - usage["paused_s"]


@pytest.mark.parametrize(
    ("case", "at", "after_s"),
    [
        pytest.param(slow(), 1, 0.05, id="rollout"),
        pytest.param(NATIVE, 1, 0.0, id="update", marks=pytest.mark.slow),
        pytest.param(slow(actors=2), 1, 0.05, id="actors", marks=pytest.mark.slow),
        pytest.param(slow(actors=2, schedule="async"), 1, 0.05, id="async", marks=pytest.mark.slow),
    ],
)
def test_killed_before_its_first_checkpoint(
    case: dict[str, Any], at: int, after_s: float, tmp_path: Path, never_paused: Callable[[dict[str, Any]], Path]
) -> None:
    """What a paused run leaves is enough to go on from, with the same bits, whether it is killed or goes on."""
    whole, killed = never_paused(case), tmp_path / "killed"

    def kill(where: RunDirectory) -> None:
        end = time.monotonic() + 10
        while not list(where.checkpoints.glob("*.json")):
            assert time.monotonic() < end, "no checkpoint was written"
            time.sleep(0.01)
        shutil.copytree(where.path, killed)
        (killed / "pause").unlink()
        status = where.read_status() | {"pid": 2**22 + 5}
        (killed / "run.json").write_text(json.dumps(status))

    pauser = Pauser(at=at, after_s=after_s, meanwhile=kill)
    path = trained(tmp_path / "paused", case, checkpoint_every=1_000_000, callbacks=[pauser])
    pauser.joined()
    assert pauser.noticed_s < NOTICED_S
    resume(killed, panel="none")
    found = [weights_sha256(one) for one in (path, killed)]
    if case.get("schedule") != "async":  # whose bits depend on the clock
        assert found == [weights_sha256(whole)] * 2
        assert metrics_of(killed) == metrics_of(path) == metrics_of(whole)


def test_stop_in_the_middle_of_a_rollout(tmp_path: Path, never_paused: Callable[[dict[str, Any]], Path]) -> None:
    """Also of a paused run: it ends soon, says by whom, and goes on later with the same bits."""
    whole = never_paused(slow())
    pauser = Pauser(after_s=0.05, end="stop")
    with pytest.warns(UserWarning, match="shoal resume"):
        path = trained(tmp_path / "stopped", slow(), callbacks=[pauser])
    pauser.joined()
    status = RunDirectory(path).read_status()
    assert (status["state"], status["stop_reason"]) == ("stopped", "stopped")
    assert status["reason"].startswith("shoal stop, by ")
    assert not {"pause", "stop"} & {found.name for found in path.iterdir()}
    resume(path, panel="none")
    assert weights_sha256(whole) == weights_sha256(path)
    assert metrics_of(whole) == metrics_of(path)


def test_a_pause_outlives_the_process(tmp_path: Path) -> None:
    """A run that is resumed stands still where its directory says so; a wish to stop it was another process's."""
    path = trained(tmp_path, NATIVE)
    (path / "pause").touch()
    (path / "stop").touch()
    pauser = Pauser(after_s=0.0, hold_s=0.1)
    told: list[str] = []

    class Going:
        """Has the run go on when it says that it stands still."""

        episodes = False

        def __call__(self, run: Any, record: Any) -> None:
            pass

        def note(self, message: str) -> None:
            told.append(message)
            if "paused by" in message and "continue" in message:
                control.go_on(RunDirectory(path))

    resume(path, panel="none", total_timesteps=4 * 64 * 6, callbacks=[Going()])
    assert pauser.error is None
    assert [message for message in told if "goes on" in message]
    assert RunDirectory(path).read_status()["state"] == "finished"
    assert not {"pause", "stop"} & {found.name for found in path.iterdir()}


@pytest.mark.parametrize(
    "kind", ["link", "text", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("folder", "pipe"))]
)
def test_other_things_than_files(kind: str, tmp_path: Path) -> None:
    """What is no file pauses nobody and stops nobody, and is left alone; what a file holds is never read."""
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    told: list[str] = []

    class Placing:
        """Puts it there, and gives the run time to see it."""

        episodes = False

        def __call__(self, run: Any, record: Any) -> None:
            if record["update"] != 2:
                return
            for name in ("pause", "stop"):
                path = run.directory.path / name
                if kind == "link":
                    path.symlink_to("/etc/passwd")
                elif kind == "folder":
                    path.mkdir()
                elif kind == "pipe":
                    os.mkfifo(path)
                elif name == "pause":
                    path.write_bytes(b"\x1b[2J\0" * 100_000)
            time.sleep(0.3)
            if kind == "text":
                assert run.meter.halt.asked
                (run.directory.path / "pause").unlink()

        def note(self, message: str) -> None:
            told.append(message)

    path = trained(hostile, NATIVE, callbacks=[Placing()])
    assert RunDirectory(path).read_status()["state"] == "finished"
    said = {"link": "is a link", "folder": "is a folder", "pipe": "is a pipe", "text": ""}[kind]
    assert len([message for message in told if said and said in message]) == (2 if said else 0)
    assert not [message for message in told if "\x1b" in message]
    assert (path / "pause").exists() == bool(said)


def test_a_file_that_cannot_be_deleted_is_said_and_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder that somebody else owns: the run stops all the same."""

    def refuse(path: Path) -> None:
        raise ConfigError(f"{path} cannot be deleted: Operation not permitted; whoever owns the folder can")

    told: list[str] = []

    class Stopping:
        """Wants it to stop, and takes what is said."""

        episodes = False

        def __call__(self, run: Any, record: Any) -> None:
            (run.directory.path / "stop").touch()
            (run.directory.path / "pause").touch()

        def note(self, message: str) -> None:
            told.append(message)

    monkeypatch.setattr("shoal.run.watching.withdraw", refuse)
    with pytest.warns(UserWarning, match="shoal resume"):
        path = trained(tmp_path, slow(), updates=50, callbacks=[Stopping()])
    assert RunDirectory(path).read_status()["state"] == "stopped"
    assert sorted(message.split()[0].rpartition("/")[2] for message in told if "cannot be deleted" in message) == [
        "pause",
        "stop",
    ]


def test_runs_that_do_not_run(tmp_path: Path) -> None:
    """A sentence says why there is nothing to ask."""
    path = trained(tmp_path, NATIVE)
    where = RunDirectory(path)
    for ask in (control.pause, control.stop):
        with pytest.raises(ConfigError, match=r"does not run \(it is finished\)"):
            ask(where)
    with pytest.raises(ConfigError, match="is not paused"):
        control.go_on(where)
    status = where.read_status() | {"state": "paused", "pid": 2**22 + 5}
    where.status.write_text(json.dumps(status))
    with pytest.raises(ConfigError, match="its process is gone"):
        control.pause(where)
    where.status.write_text(json.dumps(status | {"host": "elsewhere"}))
    with pytest.raises(ConfigError, match="runs on elsewhere"):
        control.pause(where)


def test_pause_in_an_evaluation(tmp_path: Path) -> None:
    """Greedy episodes beside training stand still too."""
    seen: list[bool] = []

    class Looking:
        """Asks for a pause before an evaluation, and looks from another thread what comes of it."""

        episodes = False

        def __call__(self, run: Any, record: Any) -> None:
            if record["update"] == 2:
                where = RunDirectory(run.directory.path)
                control.pause(where)
                while not run.meter.halt.asked:
                    time.sleep(0.01)
                Thread(target=self.look, args=(where,)).start()

        def look(self, where: RunDirectory) -> None:
            found = control.wait_until(where, 10.0, lambda now: now.get("state") == "paused")
            seen.append(found is not None and found["state"] == "paused")
            control.go_on(where)

    settings = {"eval_every": 64, "eval_episodes": 2}
    path = trained(tmp_path, NATIVE, callbacks=[Looking()], **settings)
    assert seen == [True]
    whole = trained(tmp_path, NATIVE, **settings)
    assert metrics_of(whole) == metrics_of(path)


@pytest.mark.parametrize("backend", ["serial", pytest.param("workers", marks=pytest.mark.slow)])
def test_usage(backend: str, tmp_path: Path) -> None:
    """A run's status says for how long it held the machine, and what its workers took; a resumed run adds to it."""
    path = trained(tmp_path, slow(backend=backend), updates=2)
    usage = RunDirectory(path).read_status()["usage"]
    assert usage["cores"] >= 1
    assert usage["wall_s"] > 2 * 16 * 0.003
    assert 0 < usage["processor_s"] < 30
    resume(path, panel="none", total_timesteps=4 * 16 * 4)
    more = RunDirectory(path).read_status()["usage"]
    assert more["wall_s"] > usage["wall_s"]
    assert more["processor_s"] > usage["processor_s"]
