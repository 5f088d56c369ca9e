"""What a configuration file names is imported only where this user's own `train` wrote it, or the user says so."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal import cli
from shoal.experiment import training, trust
from shoal.experiment.experiment import Experiment
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TINY: Any = {"num_envs": 2, "num_steps": 16, "num_minibatches": 1, "update_epochs": 1, "total_timesteps": 64}
SOURCE = """
import gymnasium as gym
from os import system
def make(**kwargs):
    return gym.make("CartPole-v1", **kwargs)
def warm_up(progress):
    return min(1.0, 2 * progress)
"""
NAME = "mine_for_trust"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module that is on no path; state of its own."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / f"{NAME}.py").write_text(SOURCE)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield folder
    sys.modules.pop(NAME, None)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A command as in a process of its own: nothing of ours is imported yet; status, and what it printed."""

    def call(*arguments: str) -> tuple[int, str]:
        sys.modules.pop(NAME, None)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["shoal", *arguments])
            patch.setattr(sys, "path", list(sys.path))
            with pytest.raises(SystemExit) as ended:
                cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return call


def train(call: Any) -> Path:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    status, said = call("train", f"{NAME}:make", *options, "--stop-at=1", "--plain", "--no-report", "--name", "x")
    assert status == 0, said
    return Path("runs", f"{NAME}_make", "ppo", "x").resolve()


def test_one_s_own_run_needs_no_flag(project: Path, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also moved or copied, and from another folder: the seal knows where the module was."""
    run = train(call)
    copied = Path(shutil.copytree(run, tmp_path / "copied"))
    moved = Path(shutil.move(run, tmp_path / "moved"))
    monkeypatch.chdir(tmp_path)
    for path in (copied, moved):
        assert call("eval", str(path), "--episodes", "2")[0] == 0
        assert call("resume", str(path), "--plain", "--no-report")[0] == 0
        assert call("train", "--config", str(path / "config.toml"), "--plain", "--no-report", "--stop-at=1")[0] == 0
    assert shoal.load(moved).evaluate(episodes=2).mean > 0
    key = tmp_path / "state" / "shoal" / "key"
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("way", ["key", "names", "folders", "seal"])
def test_what_breaks_the_seal(way: str, project: Path, call: Any, tmp_path: Path) -> None:
    """Another user or machine, other names, other folders: refused with the name and the flag, and nothing is run."""
    run = train(call)
    config = run / "config.toml"
    text = config.read_text()
    if way == "key":
        (tmp_path / "state" / "shoal" / "key").unlink()
    elif way == "names":
        config.write_text(text.replace(f'env = "{NAME}:make"', f'env = "{NAME}:other"'))
    elif way == "folders":
        config.write_text(text.replace(str(project), str(tmp_path)))
    else:
        config.write_text(re.sub(r'(?m)^seal = ".', 'seal = "', text))
    for command in (["eval", str(run)], ["resume", str(run), "--plain"], ["train", "--config", str(config)]):
        status, said = call(*command)
        assert status == 2
        assert re.search(rf"names '{NAME}:\w+' \(env\), which would be imported and run.*--trust", said)
        assert NAME not in sys.modules


@pytest.mark.slow
def test_trusted_by_the_flag(project: Path, call: Any, tmp_path: Path) -> None:
    """`--trust`, `trust=True`, or the name on the command line."""
    run = train(call)
    (tmp_path / "state" / "shoal" / "key").unlink()
    assert call("eval", str(run), "--episodes", "1", "--trust")[0] == 0
    config = ["--config", str(run / "config.toml"), "--plain", "--no-report", "--stop-at=1"]
    assert call("train", *config)[0] == 2
    assert call("train", *config, "--env", f"{NAME}:make")[0] == 0
    for command in (["eval", str(run), "--episodes=1"], ["resume", str(run), "--plain", "--no-report"]):
        assert call(*command)[0] == 2
        assert call(*command, "--env", f"{NAME}:make")[0] == 0
    assert call("train", *config, "--trust")[0] == 0
    sys.path.append(str(project))
    assert shoal.load(run, trust=True).evaluate(episodes=1).mean > 0
    own = __import__(NAME).make
    assert shoal.load(run, factory=own).evaluate(episodes=1).mean > 0


def test_a_key_that_others_may_read_is_none(project: Path, call: Any, tmp_path: Path) -> None:
    run = train(call)
    (tmp_path / "state" / "shoal" / "key").chmod(0o644)
    assert call("eval", str(run))[0] == 2


def test_schedules_are_names_too(project: Path, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that an algorithm's setting names is imported for a sealed run, by the flag, or given again."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    quiet = ["--stop-at=inf", "--plain", "--no-report"]
    schedule = ["--learning-rate-schedule", f"{NAME}:warm_up"]
    status, said = call("train", "CartPole-v1", *options, *quiet, *schedule, "--name", "x")
    assert status != 2, said
    run = Path("runs", "CartPole-v1", "ppo", "x").resolve()
    monkeypatch.chdir(tmp_path)
    longer = ["--total-timesteps", "96", "--plain", "--no-report"]
    status, said = call("resume", str(run), *longer)
    assert status in (0, 1), said
    (tmp_path / "state" / "shoal" / "key").unlink()
    config = ["train", "--config", str(run / "config.toml"), *quiet]
    status, said = call("eval", str(run))  # plays, and calls no schedule
    assert status in (0, 1), said
    assert NAME not in sys.modules
    for command in (["resume", str(run), *longer], config):
        status, said = call(*command)
        assert status == 2
        assert f"names '{NAME}:warm_up' (learning_rate_schedule), which would be imported" in said
        assert "--learning-rate-schedule, or learning_rate_schedule=..." in said
        assert NAME not in sys.modules
    monkeypatch.chdir(project)
    status, said = call("resume", str(run), *longer[:1], "112", *longer[2:], *schedule)
    assert status in (0, 1), said
    status, said = call("resume", str(run), "--learning-rate-schedule=linear", "--trust")
    assert (status, "resume cannot change 'learning_rate_schedule'" in said) == (2, True)
    assert call(*config, "--trust")[0] in (0, 1)
    assert call(*config, *schedule)[0] in (0, 1)
    assert call(*config, "--learning-rate-schedule=linear")[0] in (0, 1)
    again: Any = {"learning_rate_schedule": lambda progress: 1.0}
    assert shoal.resume(run, panel="none", total_timesteps=128, **again).steps == 128
    with pytest.raises(ConfigError, match="resume cannot change 'learning_rate_schedule'"):
        shoal.resume(run, panel="none", learning_rate_schedule="linear")


def test_a_file_in_python_obeys_the_rule(project: Path, call: Any, run_dir: Path) -> None:
    """`config=` names code only with `trust=True`, or where the call gives what the file names."""
    own = project / "mine.toml"
    own.write_text(f'env = "{NAME}:make"\n[algorithm]\nlearning_rate_schedule = "{NAME}:warm_up"\n')
    settings: Any = TINY | {"config": own, "panel": "none", "run_dir": run_dir}
    with pytest.raises(ConfigError, match=r"names 'mine_for_trust:warm_up' \(learning_rate_schedule\), which would"):
        shoal.train("CartPole-v1", **settings)
    assert NAME not in sys.modules
    sys.path.append(str(project))
    assert shoal.train("CartPole-v1", trust=True, **settings).steps == 64
    assert shoal.train("CartPole-v1", learning_rate_schedule="linear", **settings).steps == 64
    with pytest.raises(ConfigError, match="trust is of what a configuration file names"):
        shoal.train("CartPole-v1", trust=True, run_dir=run_dir)


@pytest.mark.parametrize("name", ["os:system", f"{NAME}:system", "functools:partial"])
def test_a_trusted_schedule_is_a_function_of_its_module(name: str, project: Path) -> None:
    sys.path.append(str(project))
    saved: dict[str, Any] = {"env": "CartPole-v1", "algorithm": {"ent_coef_schedule": name}}
    with pytest.raises(ConfigError, match=f"names '{name}' as its ent_coef_schedule, which is no function that is"):
        Experiment.of_file(saved, trust=True)


def test_the_run_of_init_from_imports_nothing(project: Path, call: Any, tmp_path: Path) -> None:
    """Its weights are read, not its configuration; a checkpoint of another run in its place is refused."""
    run = train(call)
    (tmp_path / "state" / "shoal" / "key").unlink()
    sys.modules.pop(NAME, None)
    settings: Any = TINY | {"panel": "none", "stop_at": 1, "init_from": run}
    tuned = shoal.train("CartPole-v1", name="tuned", **settings).path
    assert NAME not in sys.modules
    shutil.rmtree(tuned / "checkpoints")
    shutil.copytree(run / "checkpoints", tuned / "checkpoints")
    with pytest.raises(ConfigError, match="belongs to the run"):
        shoal.train("CartPole-v1", **settings | {"init_from": tuned})


@pytest.mark.parametrize("setting", ["env", "policy"])
@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", f"{NAME}:system", "sys:path", "functools:reduce"])
def test_a_trusted_file_names_environments_and_policies_only(setting: str, name: str, project: Path) -> None:
    """Nothing else is called, with no keyword of the file."""
    sys.path.append(str(project))
    saved: dict[str, Any] = {"env": "CartPole-v1", "env_kwargs": {"command": "true"}} | {setting: name}
    with pytest.raises(ConfigError, match=f"names '{name}' as its {setting}, which is neither a .* nor a function"):
        Experiment.of_file(saved, trust=True)


@pytest.mark.parametrize(
    "name", ["CartPole-v1", "Blackjack-v1", "ALE/Pong-v5", "shoal.envs.agents.tictactoe:TicTacToe"]
)
def test_shoal_s_and_gymnasium_s_names_import_nothing(name: str) -> None:
    assert trust.imported_by({"env": name, "algo": "ppo"}) == {}


def test_the_current_folder_is_on_the_path_for_names_of_the_command_line_only(project: Path, call: Any) -> None:
    """`runs` and `report` import nothing from there, even where a module of it is called like one of theirs."""
    (project / "matplotlib.py").write_text("raise SystemExit('planted')")
    seen: list[bool] = []
    here = str(project)
    for command in (["runs"], ["report", "."], ["eval", "."], ["check-env", f"{NAME}:make", "--steps", "50"]):
        path = list(sys.path)
        sys.modules.pop(NAME, None)
        assert "planted" not in call(*command)[1]
        assert sys.path == path
        seen.append(NAME in sys.modules)
    assert seen == [False, False, False, True]
    assert here not in sys.path


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_envs": 10**11}, "100,000,000,000 rows of CartPole-v1"),
        ({"algorithm": {"network": {"hidden": [10**6, 10**6]}}}, "layers of .* numbers"),
        ({"algorithm": {"network": {"recurrent": "gru", "recurrent_size": 10**7}}}, "layers of .* numbers"),
        ({"algorithm": {"num_steps": 10**13}}, "rollouts of 10,000,000,000,000 steps of .* rows"),
    ],
)
def test_absurd_sizes_are_refused(settings: dict[str, Any], told: str, run_dir: Path) -> None:
    """Before anything is allocated, with what is free and what asks for it; no directory is left."""
    experiment = Experiment.of_file({"env": "CartPole-v1", "run_dir": str(run_dir)} | settings)
    with pytest.raises(ConfigError, match=rf"{told} need .* of memory, and this process may take"):
        training.start(experiment, panel="none")
    assert not run_dir.exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"preprocessing": {"frame_stack": 10**9}}, "frame_stack must be at least 1 and at most 1,024"),
        ({"algorithm": {"network": {"hidden": [1] * 1000}}}, "hidden may hold at most 256 layers"),
        ({"num_threads": 10**6}, "num_threads must be at least 1 and at most 1024"),
        ({"num_workers": 10**6}, "num_workers must be between 0 and 1024"),
        ({"grad_shards": 10**9}, "grad_shards must be between 1 and 1024"),
    ],
)
def test_absurd_counts_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Experiment.of_file({"env": "CartPole-v1"} | settings)
