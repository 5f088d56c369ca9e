"""What a resumed run may be given of its length, and what it says where it has nothing to go on from, or to do."""

from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.cli import resume as cli_resume
from shoal.cli.statuses import MET
from shoal.run.directory import RunDirectory
from shoal.types import ConfigError

pytestmark = pytest.mark.usefixtures("few_greedy_episodes")
CASES: dict[str, dict[str, Any]] = {
    "ppo": {"algo": "ppo", "num_steps": 8, "num_minibatches": 2, "update_epochs": 1},
    "overlap": {"algo": "a2c", "num_steps": 8, "schedule": "overlap"},
    "async": {"algo": "impala", "num_steps": 8, "schedule": "async", "actors": 2},
    "dqn": {"algo": "dqn", "batch_size": 32, "replay": {"buffer_size": 500, "learning_starts": 32}},
    "pqn": {"algo": "pqn", "num_steps": 8, "num_minibatches": 2, "update_epochs": 1},
}


def trained(folder: Path, case: str = "ppo", **settings: Any) -> RunDirectory:
    """A run of 4 rows that has done 128 steps of the 120 it was asked for."""
    told: dict[str, Any] = {"num_envs": 4, "total_timesteps": 120, "stop_at": float("inf"), "panel": "none"}
    path = shoal.train("CartPole-v1", run_dir=folder, **told | CASES[case] | settings).path
    return RunDirectory(path)


@pytest.mark.parametrize("case", CASES)
def test_fewer_steps_than_are_done_are_refused(case: str, tmp_path: Path) -> None:
    """What was trained, what was asked and what to do; nothing of the run changes. As many are the end of it."""
    run = trained(tmp_path, case)
    done = run.read_status()["steps"]
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    said = rf"total_timesteps={done - 4}, but {run.path} has done {done} steps already.*Give more than {done}.*new run"
    with pytest.raises(ConfigError, match=said):
        shoal.resume(run.path, panel="none", total_timesteps=done - 4)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    result = shoal.resume(run.path, panel="none", total_timesteps=done)
    assert (result.steps, result.stop_reason, run.read_config()["total_timesteps"]) == (done, "total_timesteps", done)


@pytest.mark.parametrize("given", [0, -1, -5.0, 2.5, float("nan"), float("inf"), "many"])
def test_no_number_of_steps(given: Any, tmp_path: Path) -> None:
    """What is no whole number of at least one is named, and the run stays as it is."""
    run = trained(tmp_path)
    with pytest.raises(ConfigError, match="total_timesteps"):
        shoal.resume(run.path, panel="none", total_timesteps=given)
    assert run.read_config()["total_timesteps"] == 120


def stop_at_64(run: Any, record: Any) -> None:
    if isinstance(record, dict) and record["step"] >= 64:
        run.stop("halfway")


def test_a_shorter_plan_is_kept_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Between what is done and what was planned: config.toml takes it over, and the run ends there."""
    run = trained(tmp_path, total_timesteps=320, callbacks=[stop_at_64])
    assert run.read_status()["steps"] == 64
    status = cli_resume.main([str(run.path), "--total-timesteps", "128", "--plain", "--no-report"], "")
    said = capsys.readouterr().out
    assert status in (0, 1)
    assert "total_timesteps is 128 from now on, and was 320; 64 steps are done: what follows their share" in said
    assert run.read_config()["total_timesteps"] == run.read_status()["steps"] == 128
    assert "finished already" not in said


def test_a_finished_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Resumed as it is, with its own number, or with as many steps as it has done; and one that reached its return."""
    run = trained(tmp_path)
    for given in ([], ["--total-timesteps", "120"]):
        cli_resume.main([str(run.path), *given, "--plain", "--no-report"], "")
        said = capsys.readouterr().out
        assert "this run is finished already, after 128 steps: total_timesteps is 120; a larger one trains on" in said
    cli_resume.main([str(run.path), "--total-timesteps", "128", "--plain", "--no-report"], "")
    said = capsys.readouterr().out
    assert "total_timesteps is 128 from now on, and was 120" in said
    assert "finished already, after 128 steps: total_timesteps is 128" in said


def test_a_run_that_reached_its_return_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More steps alone train nothing there."""
    run = trained(tmp_path, stop_at=1.0, total_timesteps=10**6)
    done = run.read_status()["steps"]
    assert done < 10**6
    status = cli_resume.main([str(run.path), "--total-timesteps", "2000000", "--plain", "--no-report"], "")
    said = capsys.readouterr().out
    assert status == MET
    assert f"finished already, after {done:,} steps: mean return" in said
    assert "reached 1; stop_at=inf trains on" in said


def test_steps_are_known_without_a_status(tmp_path: Path) -> None:
    """By the metrics, where run.json is lost."""
    run = trained(tmp_path)
    run.status.unlink()
    with pytest.raises(ConfigError, match="has done 128 steps"):
        shoal.resume(run.path, panel="none", total_timesteps=127)


def test_settings_that_cannot_apply_are_refused(tmp_path: Path) -> None:
    """As for a new run: by name, with why."""
    run = trained(tmp_path)
    with pytest.raises(ConfigError, match="eval_episodes=3 would change nothing: set eval_every too"):
        shoal.resume(run.path, panel="none", eval_episodes=3)
