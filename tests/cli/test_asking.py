"""`shoal pause`, `continue` and `stop`: what they say, and their exit statuses."""

from __future__ import annotations

import json
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal.cli import continue_, pause, stop, train
from shoal.report.run_table import state_of
from shoal.run.callbacks import EpisodeEnd
from shoal.run.directory import RunDirectory
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

ENDLESS: dict[str, Any] = {"total_timesteps": 4_000_000, "stop_at": float("inf"), "num_envs": 4, "num_steps": 64}


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
