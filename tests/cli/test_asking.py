"""`shoal pause`, `continue` and `stop`: what they say, and their exit statuses."""

from __future__ import annotations

import json
import os
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal.cli import continue_, pause, stop, train
from shoal.nets.policy import Network, make_policy
from shoal.report.facts import Processors, facts_of
from shoal.report.run_table import state_of
from shoal.run import control
from shoal.run.callbacks import EpisodeEnd
from shoal.run.directory import RunDirectory, list_runs
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

ENDLESS: dict[str, Any] = {"total_timesteps": 4_000_000, "stop_at": float("inf"), "num_envs": 4, "num_steps": 64}


def small(spec: Any) -> Any:
    """A policy."""
    return make_policy(spec, Network(hidden=(8,)), 0)


def test_three_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One after another, each when the one before is done."""
    found: list[Any] = []
    root = str(tmp_path / "runs")

    def ask() -> None:
        where = ["night", "--run-dir", root]
        found.append(pause.main(where, ""))
        found.append(state_of(RunDirectory(tmp_path / "runs" / "CartPole-v1" / "ppo" / "night")))
        found.append(pause.main([root, "--all"], ""))
        found.append(continue_.main(where, ""))
        found.append(stop.main(where, ""))

    class Asking:
        """Asks from another thread, once."""

        thread: Thread | None = None
        episodes = False

        def __call__(self, run: Any, record: Any) -> None:
            if self.thread is None:
                self.thread = Thread(target=ask)
                self.thread.start()

    asking = Asking()
    with pytest.warns(UserWarning, match="shoal resume"):
        result = shoal.train(
            "CartPole-v1", algo="ppo", **ENDLESS, run_dir=root, name="night", panel="none", callbacks=[asking]
        )
    assert asking.thread is not None
    asking.thread.join()
    assert found == [0, "paused", 0, 0, 0]
    assert (result.stop_reason, RunDirectory(result.path).read_status()["state"]) == ("stopped", "stopped")
    lines = capsys.readouterr().out.splitlines()
    said = ["paused at step", "paused at step", "running at step", "stopped at step"]
    assert [part in line for part, line in zip(said, lines, strict=True)] == [True] * 4
    assert "`shoal continue" in lines[0]
    assert "`shoal resume" in lines[3]
    with pytest.raises(ConfigError, match="does not run"):
        pause.main(["night", "--run-dir", root], "")
    with pytest.raises(ConfigError, match=r"no run below .* goes on"):
        stop.main([root, "--all"], "")
    with pytest.raises(ConfigError, match=r"no run at nowhere"):
        stop.main(["nowhere", "--run-dir", root], "")


def test_not_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What takes longer than the command waits is said, and comes later."""
    found: list[int] = []

    def ask(run: RunDirectory) -> None:
        found.append(pause.main([str(run.path), "--timeout-s", "0"], ""))
        (run.path / "pause").unlink(missing_ok=True)

    def asking(run: Any, record: Any) -> None:
        if not isinstance(record, EpisodeEnd) and not found:
            ask(run.directory)

    settings: Any = ENDLESS | {"total_timesteps": 1024}
    shoal.train(
        "CartPole-v1",
        **settings,
        run_dir=str(tmp_path),
        callbacks=[asking],
        panel="none",
        final_episodes=0,
    )
    assert found == [1]
    assert "asked to be paused, but a step or an update under way" in capsys.readouterr().out


def test_exit_status_of_a_stopped_run(tmp_path: Path) -> None:
    """As after Ctrl-C: neither met nor missed."""
    from shoal.cli.statuses import INTERRUPTED, status_of

    class Stopped:
        stop_reason, solved = "stopped", True

    stopped: Any = Stopped()
    assert status_of(stopped) == INTERRUPTED == 130
    assert train.STATUSES.endswith("130, Ctrl-C or `shoal stop`.")


def test_continue_after_the_process_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is taken away, and what goes on is said."""
    run = tmp_path / "Toy-v0" / "ppo" / "night"
    run.mkdir(parents=True)
    (run / "config.toml").write_text('env = "Toy-v0"\nalgo = "ppo"\nseed = 1\n')
    status = {"state": "paused", "pid": 2**22 + 1, "process_started": 1.0, "steps": 512, "env": "Toy-v0", "seed": 1}
    (run / "run.json").write_text(json.dumps(status))
    (run / "pause").touch()
    assert continue_.main([str(run)], "") == 1
    assert not (run / "pause").exists()
    said = capsys.readouterr().out
    assert "its process is gone, at step 512; `shoal resume" in said


@pytest.mark.parametrize("again", [False, True])
def test_a_run_that_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str], *, again: bool) -> None:
    """Asked before it trains, or before it goes on, a run says that it starts, and then does what it was asked."""
    found: list[Any] = []
    seen: list[tuple[str, int]] = []
    threads: list[Thread] = []
    calls: list[Any] = []

    def wait(run: RunDirectory) -> None:
        found.append(control.wait_until(run, 20.0, lambda now: now.get("state") == "paused"))
        control.go_on(run)

    def policy(spec: Any) -> Any:
        [run] = list_runs(tmp_path)
        calls.append(spec)
        if len(calls) == 1 + again:
            seen.append((state_of(run), pause.main([str(run.path), "--timeout-s", "0"], "")))
            seen.append((state_of(run), pause.main([str(tmp_path), "--all", "--timeout-s", "0"], "")))
            assert facts_of(run, None, Processors()).asked == "asked to pause"
            threads.append(Thread(target=wait, args=(run,)))
            threads[-1].start()
        return small(spec)

    told: dict[str, Any] = ENDLESS | {"total_timesteps": 512, "panel": "none", "final_episodes": 0}
    path = shoal.train("CartPole-v1", run_dir=tmp_path, policy=policy, **told).path
    if again:
        shoal.resume(path, policy=policy, panel="none", total_timesteps=1024)
    threads[-1].join()
    assert seen == [("starting", 1)] * 2
    assert found[0]["state"] == "paused"
    assert found[0]["steps"] == (512 if again else 0)
    assert "it still starts, and will be paused as soon as it runs" in capsys.readouterr().out
    assert RunDirectory(path).read_status()["state"] == "finished"
    assert not {"starting", "pause", "stop"} & {file.name for file in path.iterdir()}


def test_a_run_that_is_stopped_while_it_starts(tmp_path: Path) -> None:
    """It ends with a checkpoint before its first update; what was asked of an earlier one is over."""

    def policy(spec: Any) -> Any:
        [run] = list_runs(tmp_path)
        control.stop(run)
        return small(spec)

    told: dict[str, Any] = ENDLESS | {"panel": "none", "final_episodes": 0}
    with pytest.warns(UserWarning, match="shoal resume"):
        path = shoal.train("CartPole-v1", run_dir=tmp_path, policy=policy, **told).path
    assert RunDirectory(path).read_status()["state"] == "stopped"
    (path / "stop").touch()
    os.utime(path / "stop", (0, 0))
    assert shoal.resume(path, policy=small, panel="none", total_timesteps=512).steps == 512


def test_a_run_that_never_began(tmp_path: Path) -> None:
    """A directory whose process was killed before it trained, a moment ago or long ago."""
    path = shoal.train("CartPole-v1", run_dir=tmp_path, panel="none", final_episodes=0, total_timesteps=512).path
    (path / "run.json").unlink()
    (path / "starting").touch()
    os.utime(path / "starting", (1, 1))
    with pytest.raises(ConfigError, match="it is interrupted: its process was killed before it trained"):
        control.pause(RunDirectory(path))
    assert not (path / "pause").exists()
