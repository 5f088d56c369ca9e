"""Runs with an action guard: trained, evaluated, loaded, resumed, recorded; what a file's names need."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import shoal
from shoal import ActionGuard
from shoal.experiment import training
from shoal.experiment.experiment import Experiment
from shoal.run.directory import RunDirectory
from shoal.run.log import read
from shoal.run.origin import Origin
from shoal.types import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:action_guard. every action:UserWarning")
TINY: dict[str, Any] = {
    "num_envs": 4,
    "num_steps": 50,
    "num_minibatches": 1,
    "update_epochs": 1,
    "num_threads": 1,
    "total_timesteps": 1000,
    "final_episodes": 0,
    "panel": "none",
    "stop_at": np.inf,
}
GUARD = ActionGuard(low=(-1,), high=(1,), max_change=(0.5,), penalty=0.25)
SHARE = "info/action_guard/share"
SEEN: list[NDArray[Any]] = []


def halve(obs: Any, action: Any) -> Any:
    """A constraint: half of every action, which is noted."""
    SEEN.append(action / 2)
    return action / 2


def tiny(run_dir: Path, **changes: Any) -> dict[str, Any]:
    return TINY | {"run_dir": run_dir} | changes


def weights_of(run: Path) -> list[bytes]:
    return [tensor.detach().numpy().tobytes() for tensor in shoal.load(run).policy.parameters()]


def numbers_of(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics without what the clock says."""
    lines = read(run / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not k.startswith(("speed/", "time/"))} for line in lines]


def test_trained_evaluated_and_loaded(tmp_path: Path) -> None:
    run = shoal.train("Pendulum-v1", action_guard=GUARD, **tiny(tmp_path)).path
    shares = [line[SHARE] for line in read(run / "metrics.jsonl") if SHARE in line]
    assert shares
    assert all(0 < share < 1 for share in shares)
    agent = shoal.load(run)
    rng = np.random.default_rng(0)
    before = np.zeros((3, 1))
    for step in range(20):
        obs = rng.uniform(-1, 1, (3, 3)).astype(np.float32)
        action = agent.act(obs, greedy=False, start=np.full(3, step == 0))
        assert (np.abs(action) <= 1).all()
        assert step == 0 or (np.abs(action - before) <= 0.5).all()
        before = action
    assert 0 < agent.interventions < 60
    assert agent.evaluate(episodes=2).mean < 0
    said = json.loads((agent.export(tmp_path / "c", to="c").folder / "spec.json").read_text())
    limits = {"low": [-1], "high": [1], "max_change": [0.5], "dtype": "float32"}
    assert said["action_guard"]["limits"] == limits
    # A given guard takes the place of the run's own, and the penalty is none of the return.
    still = shoal.load(run, action_guard=ActionGuard(low=(0,), high=(0,), penalty=1000))
    assert still.act(np.array([1, 0, 0], np.float32)).tolist() == [0]
    assert still.evaluate(episodes=2).mean > -2000


def test_an_evaluation_and_a_recording_pass_the_guard(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    guard = ActionGuard(constraint=halve)
    run = shoal.train("Pendulum-v1", action_guard=guard, **tiny(tmp_path)).path
    assert RunDirectory(run).read_config()["action_guard"]["constraint"] == f"{__name__}:halve"
    SEEN.clear()
    agent = shoal.load(run)
    agent.evaluate(episodes=1)
    evaluated = len(SEEN)
    assert evaluated >= 200
    folder = agent.record(tmp_path / "data", episodes=1).path
    done = np.array([action for batch in SEEN[evaluated : evaluated + 200] for action in batch])
    import h5py

    with h5py.File(next(Path(folder).rglob("*.hdf5"))) as file:
        kept = np.array(file["episode_0/actions"])
    assert np.array_equal(kept, done[: len(kept)])


@pytest.mark.parametrize("algo", ["ppo", pytest.param("sac", marks=pytest.mark.slow)])
def test_a_resumed_run_equals_one_that_was_not_stopped(tmp_path: Path, algo: str) -> None:
    settings: dict[str, Any] = TINY | {"run_dir": tmp_path, "algo": algo, "action_guard": GUARD}
    if algo == "sac":
        settings = {k: v for k, v in settings.items() if k not in ("num_steps", "num_minibatches", "update_epochs")}
        replay = {"learning_starts": 400, "samples_per_insert": 8}
        settings |= {"replay": replay, "total_timesteps": 1000, "batch_size": 32}

    def stop(run: Any, record: Any) -> None:
        if run.updates == (3 if algo == "ppo" else 40):
            run.stop("in between")

    whole = shoal.train("Pendulum-v1", name="whole", **settings).path
    halves = shoal.train("Pendulum-v1", name="halves", callbacks=[stop], **settings).path
    assert weights_of(halves) != weights_of(whole)
    shoal.resume(halves, panel="none")
    assert weights_of(halves) == weights_of(whole)
    assert [line.get(SHARE) for line in numbers_of(halves)] == [line.get(SHARE) for line in numbers_of(whole)]


@pytest.mark.slow
def test_actors_learn_the_same_bits(tmp_path: Path) -> None:
    settings: dict[str, Any] = TINY | {"run_dir": tmp_path, "action_guard": GUARD}
    mine = shoal.train("Pendulum-v1", name="mine", **settings).path
    beside: dict[str, Any] = {"schedule": "async", "max_staleness": 0, "actors": 2}
    theirs = shoal.train("Pendulum-v1", name="theirs", **settings, **beside).path
    assert weights_of(mine) == weights_of(theirs)
    workers = shoal.train("Pendulum-v1", name="workers", backend="workers", num_workers=2, **settings).path
    serial = shoal.train("Pendulum-v1", name="serial", backend="serial", **settings).path
    assert weights_of(workers) == weights_of(serial)


def test_a_function_without_a_name_is_given_again(tmp_path: Path) -> None:
    def half(obs: Any, action: Any) -> Any:
        return action / 2

    guard = ActionGuard(constraint=half)
    settings: dict[str, Any] = TINY | {"run_dir": tmp_path, "action_guard": guard, "total_timesteps": 400}
    run = shoal.train("Pendulum-v1", **settings).path
    with pytest.raises(ConfigError, match=r"no module has under a name; give it again: action_guard=ActionGuard"):
        shoal.load(run)
    assert shoal.load(run, action_guard=guard).act(np.zeros(3, np.float32)).shape == (1,)
    with pytest.raises(ConfigError, match="give it again"):
        shoal.resume(run, total_timesteps=800, panel="none")
    with pytest.raises(ConfigError, match="action_guard"):
        shoal.resume(run, total_timesteps=800, panel="none", action_guard=ActionGuard(high=(0.5,), constraint=half))
    assert shoal.resume(run, total_timesteps=800, panel="none", action_guard=guard).steps == 800


def test_limits_are_not_changed_by_resuming(tmp_path: Path) -> None:
    run = shoal.train("Pendulum-v1", action_guard=GUARD, **tiny(tmp_path, total_timesteps=400)).path
    with pytest.raises(ConfigError, match="resume cannot change 'action_guard'"):
        shoal.resume(run, total_timesteps=800, panel="none", action_guard=ActionGuard())


def test_names_of_a_strangers_file_are_not_imported() -> None:
    saved = {"env": "Pendulum-v1", "action_guard": {"constraint": "strange_module:function"}}
    with pytest.raises(ConfigError, match=r"names 'strange_module:function' \(action_guard.constraint\), which would"):
        Experiment.of_file(saved, origin=Origin.of_file(saved, Path("config.toml")))
    assert "strange_module" not in sys.modules


def test_on_the_command_line_and_in_files() -> None:
    from shoal.cli.train import Session, experiment_of

    given = ["--action-guard.low=-1", "--action-guard.max-change", "0.5", "--action-guard.constraint", "math:fabs"]
    experiment, _ = experiment_of(["Pendulum-v1", *given], Session, command="train", about="")
    options = experiment.options
    assert options.action_guard == ActionGuard(low=(-1,), max_change=(0.5,), constraint="math:fabs")


@pytest.mark.parametrize(
    ("env", "guard", "said"),
    [
        ("Pendulum-v1", {"low": (-3,)}, "the action space only has"),
        ("CartPole-v1", {"high": (1,)}, r"high is for a Box of real numbers, but the actions are Discrete\(2\)"),
        ("Pendulum-v1", {"penalty": 1}, "nothing is limited"),
        ("Pendulum-v1", {"lo": (-1,)}, "no setting 'lo'"),
    ],
)
def test_refused_before_a_directory_is_made(tmp_path: Path, env: str, guard: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        shoal.train(env, action_guard=guard, **tiny(tmp_path))
    assert not list(tmp_path.rglob("config.toml"))


def test_it_is_said_that_native_rollouts_give_way(tmp_path: Path) -> None:
    assert training  # the module whose panel warns
    with pytest.warns(UserWarning, match="not collected in one native call"):
        shoal.train("Pendulum-v1", action_guard=GUARD, **tiny(tmp_path, total_timesteps=200))
