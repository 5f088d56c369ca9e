"""Arguments of another type are refused in words wherever Python calls; NumPy's numbers are numbers."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import shoal
from shoal.cli import doctor, runs
from shoal.deploy.stages.criteria import Canary, Criteria, Drifts, Replay, Shadow, Simulate
from shoal.report.cost.prices import find_prices
from shoal.types import ConfigError
from shoal.types.arguments import flag_of, number_of, path_of, whole_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoal.experiment.agent import Agent

SMALL: Any = {"num_envs": 1, "num_steps": 8, "total_timesteps": 8, "num_threads": 1, "panel": "none"}
ODD = ([1], {}, object(), b"x")
NUMBER = (*ODD, "half", None, True, float("nan"), float("inf"))
FLAG = (*ODD, "yes", None, 1, 0.0)
PATH = (*ODD, 3, True, 0.5)
"""What is none of these."""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    run = shoal.train("CartPole-v1", algo="a2c", run_dir=tmp_path_factory.mktemp("runs"), final_episodes=0, **SMALL)
    return shoal.load(run.path)


def test_every_entry_point_says_which_argument_is_wrong(agent: Agent, tmp_path: Path) -> None:
    """And leaves nothing behind."""
    stages = shoal.stages(agent)
    space = {"gamma": {"low": 0.9, "high": 0.99}}
    plan = {"env": "CartPole-v1", "sweep": {"trials": 1}, "space": space}
    new = tmp_path / "new"
    cases: dict[str, tuple[Callable[..., object], dict[str, Any], tuple[object, ...]]] = {
        "share": (agent.canary, {"log": new}, NUMBER),
        "drift": (agent.shadow, {"log": new}, (*ODD, "half", True, 3)),
        "log": (agent.shadow, {}, PATH),
        "stage": (stages.enter, {}, (*ODD, None, 3, np.int64(3))),
        "data": (lambda data: stages.enter("simulate", data), {}, PATH),
        "reason": (stages.rollback, {"name": "A. Name"}, (*ODD, None, 3)),
        "agent": (shoal.stages, {}, (*ODD, None, 3, True)),
        "criteria": (shoal.stages, {"agent": agent}, (*ODD, 3, True)),
        "gamma": (shoal.evaluate_offline, {"agent": agent, "data": new}, (*ODD, "half", True, 1.5)),
        "episodes": (agent.evaluate, {}, (*NUMBER, 0, 2.5)),
        "max_steps": (agent.record, {"folder": new, "episodes": 1}, (*ODD, "half", True, 0)),
        "greedy": (agent.record, {"folder": new, "episodes": 1}, FLAG),
        "folder": (agent.export, {"to": "c"}, PATH),
        "name": (agent.export, {"to": "c", "folder": new}, (*ODD, None, 3)),
        "rows": (agent.record_video, {"path": new}, NUMBER),
        "listen": (agent.serve, {}, (*ODD, None, 3)),
        "guard": (agent.serve, {}, (*ODD, "half", True)),
        "most_rows": (agent.serve, {}, NUMBER),
        "timeout_s": (shoal.remote_policy, {"address": "grpc://127.0.0.1:1"}, NUMBER),
        "address": (shoal.remote_policy, {}, (*ODD, None, 3)),
        "source": (shoal.sweep, {"out": new, "panel": "none"}, ([1], object(), b"x", None, 3, True)),
        "out": (shoal.sweep, {"source": plan, "panel": "none"}, PATH),
        "path": (shoal.load, {}, PATH),
        "report": (shoal.resume, {"path": agent.provenance.folder, "panel": "none"}, FLAG),
        "trust": (shoal.load, {"path": agent.provenance.folder}, FLAG),
        "run_dir": (shoal.resume, {"path": agent.provenance.folder, "panel": "none"}, (*PATH, None)),
        "panel": (lambda panel: shoal.train("CartPole-v1", **{**SMALL, "panel": panel}), {}, (*ODD, None, 3)),
    }
    for name, (call, given, values) in cases.items():
        for value in values:
            with pytest.raises(ConfigError, match=rf"^{name} "):
                call(**given, **{name: value})
    odd: Any
    for odd in FLAG:
        with pytest.raises(ConfigError, match=r"^greedy must be true or false"):
            agent.act(np.zeros(4, np.float32), greedy=odd)
        for name in ("report", "trust"):
            given: Any = {**SMALL, name: odd}
            with pytest.raises(ConfigError, match=rf"^{name} must be true or false"):
                shoal.train("CartPole-v1", run_dir=new, **given)
    for value in PATH:
        with pytest.raises(ConfigError, match=r"^path must be a path"):
            find_prices(value)  # pyright: ignore[reportArgumentType]
    assert not new.exists()


def test_every_criterion_says_so_too() -> None:
    for part in (Simulate, Replay, Shadow, Canary, Drifts):
        name = "drift" if part is Drifts else part.__name__.lower()
        for one in fields(part):
            made: Any = part
            for value in (*ODD, "half"):
                with pytest.raises(ConfigError, match=rf"^{name}\.{one.name} must be "):
                    Criteria(**{name: made(**{one.name: value})})
        with pytest.raises(ConfigError, match=f"^{name} must be a {part.__name__}, got 'half'"):
            Criteria(**{name: "half"})  # pyright: ignore[reportArgumentType]
    given: Any = Simulate(episodes=np.int64(7), least_return=np.float32(0.5), seed=np.int32(3))  # pyright: ignore[reportArgumentType]
    kept = Criteria(simulate=given).simulate
    assert (kept.episodes, kept.least_return, kept.seed) == (7, 0.5, 3)
    assert [type(x) for x in (kept.episodes, kept.least_return, kept.seed)] == [int, float, int]


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    assert number_of("x", np.float32(0.5), 0, 1) == 0.5
    assert whole_of("x", np.int64(3), 1) == whole_of("x", 3.0, 1) == 3
    assert flag_of("x", np.bool_(True)) is True
    assert path_of("x", str(tmp_path)) == path_of("x", tmp_path) == tmp_path
    with pytest.raises(ConfigError, match=r"^x must be a whole number from 1 to 2147483647, got 0 \(int\)$"):
        whole_of("x", 0, 1)


def test_a_leading_tilde_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No folder called ~ is made, and the run is found there again, by Python and by commands."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run = shoal.train("CartPole-v1", algo="a2c", run_dir="~/kept", name="mine", final_episodes=0, **SMALL)
    assert run.path == tmp_path / "kept/CartPole-v1/a2c/mine"
    assert not (tmp_path / "~").exists()
    for name, where in (("mine", "~/kept"), ("~/kept", "runs"), ("~/kept/CartPole-v1/a2c/mine", "runs")):
        assert shoal.load(name, run_dir=where).provenance.folder == run.path
    assert runs.main(["--run-dir", "~/kept"], "") == 0
    assert doctor.main(["mine", "--run-dir=~/kept"], "") == 0
    assert "mine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "x" * 201}, "a run's name has at most 200 bytes, got 201"),
        ({"run_dir": "/proc/x"}, "cannot be made: "),
    ],
    ids=["name", "folder"],
)
def test_a_run_that_has_no_folder(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        shoal.train("CartPole-v1", **({"run_dir": str(tmp_path)} | SMALL | given))
