"""Schedules in whole runs: resumed ones, prolonged ones, and functions by name in files and on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.cli.train import Session, parse_over, source_of, starting_point
from shoal.experiment.experiment import Experiment
from shoal.run.directory import RunDirectory
from shoal.run.log import read
from shoal.types import ConfigError
from tests.run.test_resume import weights_sha256

STEPS = 4 * 8
TINY: dict[str, Any] = {
    "num_envs": 4,
    "num_steps": 8,
    "seed": 3,
    "stop_at": float("inf"),
    "panel": "none",
    "network": {"hidden": [8]},
    "learning_rate": 1e-2,
}


def warm_up(progress: float) -> float:
    """Grows over the first half."""
    return min(1.0, 2 * progress)


def rates(path: Path) -> list[float]:
    """The learning rate of each update."""
    return [line["train/learning_rate"] for line in read(path / "metrics.jsonl")]


@pytest.fixture(autouse=True)
def quick(few_greedy_episodes: None) -> None:
    """Training is what is looked at."""


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_a_prolonged_run_goes_on_with_the_schedule_of_its_new_length(algo: str, run_dir: Path) -> None:
    """Linear over 4 updates, then resumed to 8: the fifth has a half, as in a run of 8 from the start."""
    settings: dict[str, Any] = TINY | {"algo": algo, "learning_rate_schedule": "linear", "run_dir": run_dir}
    path = shoal.train("CartPole-v1", total_timesteps=4 * STEPS, **settings).path
    assert rates(path) == pytest.approx([1e-2, 0.75e-2, 0.5e-2, 0.25e-2])
    shoal.resume(path, total_timesteps=8 * STEPS, panel="none")
    assert rates(path)[4:] == pytest.approx([0.5e-2, 0.375e-2, 0.25e-2, 0.125e-2])


def test_a_resumed_run_has_the_rates_and_weights_of_a_whole_one(run_dir: Path) -> None:
    """All three settings scheduled, one by a function's name: stopped after 3 of 8 updates and resumed."""
    plans: dict[str, Any] = {"clip_coef_schedule": "cosine", "ent_coef": 0.1, "ent_coef_schedule": "linear"}
    plans |= {"learning_rate_schedule": warm_up, "total_timesteps": 8 * STEPS}
    settings: dict[str, Any] = TINY | plans | {"run_dir": run_dir}
    whole = shoal.train("CartPole-v1", name="whole", **settings).path
    assert rates(whole) == pytest.approx([1e-2 * min(1, k / 4) for k in range(8)])
    lines = read(whole / "metrics.jsonl")
    assert [line["train/ent_coef"] for line in lines] == pytest.approx([0.1 * (1 - k / 8) for k in range(8)])
    assert lines[4]["train/clip_coef"] == pytest.approx(0.1)

    def stop(run: Any, record: Any) -> None:
        if run.updates == 3:
            run.stop("three")

    halves = shoal.train("CartPole-v1", name="halves", callbacks=[stop], **settings).path
    assert len(rates(halves)) == 3
    shoal.resume(halves, panel="none")
    assert rates(halves) == rates(whole)
    assert weights_sha256(halves) == weights_sha256(whole)


def test_functions_are_kept_by_name(run_dir: Path) -> None:
    """A function of a module is found again; one without a name is asked for, and taken; nothing else is."""
    settings: dict[str, Any] = TINY | {"total_timesteps": 4 * STEPS, "run_dir": run_dir}
    named = shoal.train("CartPole-v1", name="named", learning_rate_schedule=warm_up, **settings).path
    assert RunDirectory(named).read_config()["algorithm"]["learning_rate_schedule"] == f"{__name__}:warm_up"
    same = shoal.train("CartPole-v1", name="same", learning_rate_schedule=f"{__name__}:warm_up", **settings).path
    assert rates(same) == rates(named) == pytest.approx([0, 0.5e-2, 1e-2, 1e-2])
    plan: Any = lambda progress: 1 - progress / 2  # noqa: E731
    given = shoal.train("CartPole-v1", name="given", ent_coef=0.1, ent_coef_schedule=plan, **settings).path
    before = RunDirectory(given).read_status()
    longer: dict[str, Any] = {"total_timesteps": 6 * STEPS, "panel": "none"}
    with pytest.raises(
        ConfigError, match=r"ent_coef_schedule is a function that no module has under a name.* again: shoal"
    ):
        shoal.resume(given, **longer)
    assert RunDirectory(given).read_status() == before
    assert "train/ent_coef" not in read(named / "metrics.jsonl")[0]
    with pytest.raises(ConfigError, match="resume cannot change 'learning_rate_schedule'"):
        shoal.resume(given, learning_rate_schedule="cosine", **longer)
    assert shoal.resume(given, ent_coef_schedule=plan, **longer).steps == 6 * STEPS
    assert shoal.load(given).evaluate(episodes=2).mean > 0


def test_a_policy_is_loaded_without_its_schedules(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only training calls them, so nobody needs to trust a file for them who only plays; resuming asks."""
    settings: dict[str, Any] = TINY | {"run_dir": run_dir, "total_timesteps": STEPS, "final_episodes": 0}
    path = shoal.train("CartPole-v1", learning_rate_schedule=warm_up, **settings).path
    monkeypatch.setenv("XDG_STATE_HOME", str(run_dir / "another user"))
    assert shoal.load(path).act([0.0] * 4) in (0, 1)
    with pytest.raises(ConfigError, match=r"'.*:warm_up' \(learning_rate_schedule\), which would be imported"):
        shoal.resume(path, panel="none", total_timesteps=2 * STEPS)


def test_schedules_on_the_command_line_and_in_files() -> None:
    """A shape or a function's name; what is neither is refused."""
    arguments = ["--env=Acrobot-v1", "--learning-rate-schedule=cosine", f"--ent-coef-schedule={__name__}:warm_up"]
    base = starting_point(source_of(arguments))
    _, _, config = parse_over(base, arguments, Session, command="train", about="")
    assert (config.learning_rate_schedule, config.ent_coef_schedule) == ("cosine", f"{__name__}:warm_up")
    saved = {"env": "Acrobot-v1", "algorithm": {"clip_coef_schedule": "linear"}}
    read_back = Experiment.of_file(Experiment.of_file(saved).to_file()).config
    assert (read_back.clip_coef_schedule, read_back.ent_coef_schedule) == ("linear", "constant")
    with pytest.raises(ConfigError, match="clip_coef_schedule must be one of constant, linear, cosine, a function"):
        Experiment.of_file({"env": "Acrobot-v1", "algorithm": {"clip_coef_schedule": "none"}})
