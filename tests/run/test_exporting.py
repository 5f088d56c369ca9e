"""Exporters: TensorBoard's events, trackers, what they are handed and when, and runs that outlive them."""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal.run import exporting
from shoal.run.exporters import TensorBoard, Tracker, exporter_of, mlflow_name
from shoal.run.exporting import Beside
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shoal.run.exporting import Sent

TINY: dict[str, Any] = {"num_envs": 8, "num_steps": 16, "num_minibatches": 2, "update_epochs": 1}


class Slow:
    """An exporter that waits until it may, and remembers."""

    name = "slow"

    def __init__(self, fails: str = "") -> None:
        self.fails, self.may, self.seen = fails, threading.Event(), list[Any]()

    def _do(self, what: str) -> None:
        assert self.may.wait(10)
        self.seen.append(what)
        if what == self.fails:
            raise RuntimeError(f"no {what}\x1b[2J")

    def begin(self) -> None:
        self._do("begin")

    def write(self, lines: Sequence[Sent]) -> None:
        self._do("write")
        self.seen += [(line.step, line.values) for line in lines]

    def end(self) -> None:
        self._do("end")


def test_nobody_waits() -> None:
    """Lines are taken while the exporter still begins, and arrive in their order, in few calls."""
    slow = Slow()
    beside = Beside(slow)
    for step in range(5):
        beside.write(step, {"a/b": float(step)})
    assert slow.seen == []
    slow.may.set()
    beside.close()
    lines = [one for one in slow.seen if isinstance(one, tuple)]
    assert lines == [(step, {"a/b": float(step)}) for step in range(5)]
    assert (slow.seen[0], slow.seen[-1]) == ("begin", "end")
    assert slow.seen.count("write") <= 2


@pytest.mark.parametrize("fails", ["begin", "write", "end"])
def test_a_tracker_that_fails(fails: str) -> None:
    """The run is warned once, in one line, and goes on without it."""
    slow = Slow(fails)
    slow.may.set()
    beside = Beside(slow)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in range(3):
            beside.write(step, {})
            time.sleep(0.02)
        beside.close()
    (said,) = [f"{one.message}" for one in told]
    assert said.startswith("slow gets nothing more")
    assert f"RuntimeError: no {fails}\\x1b[2J" in said


def test_what_must_work() -> None:
    """Events in the run's own directory are the run's: what goes wrong with them is raised."""
    slow = Slow("write")
    slow.may.set()
    beside = Beside(slow, must=True)
    beside.write(1, {})
    with pytest.raises(RuntimeError, match="no write"):
        beside.close()
    beside.close()


def test_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits for a bounded time, and says how many lines are missing elsewhere."""
    monkeypatch.setattr(exporting, "CLOSE_S", 0.1)
    monkeypatch.setattr(exporting, "MOST_WAITING", 2)
    slow = Slow()
    beside = Beside(slow)
    for step in range(4):
        beside.write(step, {})
    with pytest.warns(UserWarning, match=r"slow is slow: [0-9]+ lines were not sent"):
        beside.close()
    slow.may.set()


def events(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """What TensorBoard's event files of a folder hold, in the order in which they were begun."""
    event: Any = importlib.import_module("tensorboardX.proto.event_pb2").Event
    found: list[tuple[int, dict[str, float]]] = []
    for path in sorted(folder.iterdir(), key=lambda p: int(p.suffix[1:])):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            one = event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            values = {value.tag: value.simple_value for value in one.summary.value}
            if one.HasField("session_log"):
                values = {"restart": float(one.session_log.status)}
            found.append((one.step, values))
    return found


def test_tensorboard(tmp_path: Path) -> None:
    """Events are written as TensorBoard reads them; a resumed run has its own file, which purges from its step on."""
    folder = tmp_path / "tensorboard"
    board = Beside(TensorBoard(folder, None), must=True)
    for step in (10, 20):
        board.write(step, {"loss/value": step / 8, "speed/sps": 1.0})
    board.close()
    first = [(0, {}), (10, {"loss/value": 1.25, "speed/sps": 1.0}), (20, {"loss/value": 2.5, "speed/sps": 1.0})]
    assert events(folder) == first
    again = Beside(TensorBoard(folder, 10), must=True)
    again.write(10, {"loss/value": 3.0})
    again.close()
    assert events(folder) == [*first, (0, {}), (10, {"restart": 1.0}), (10, {"loss/value": 3.0})]


@pytest.mark.parametrize("kind", ["wandb", "trackio", "mlflow"])
def test_missing_tracker_names_its_extra(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that is not installed: ConfigError says how to install it, before anything is begun."""
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ConfigError, match=rf"{kind} is not installed: pip install 'shoal-rl\[{kind}\]'"):
        exporter_of(kind, name="run", config={}, root=tmp_path)


def test_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker gets the run's name and configuration, each line, and its end."""
    calls: list[Any] = []
    fake = SimpleNamespace(
        init=lambda **given: calls.append(given),
        log=lambda values, step: calls.append((step, values)),
        finish=lambda: calls.append("end"),
    )
    monkeypatch.setitem(sys.modules, "trackio", fake)
    tracker = Beside(Tracker("trackio", name="a/b", config={"seed": 1}))
    tracker.write(5, {"loss/value": 1.0})
    tracker.close()
    assert json.dumps(calls) == json.dumps(
        [{"project": "shoal", "name": "a/b", "config": {"seed": 1}}, [5, {"loss/value": 1.0}], "end"]
    )


def test_training_does_not_wait_for_a_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that takes its time to begin: training ends meanwhile, and every line arrives."""
    steps: list[int] = []
    trained = threading.Event()

    def init(**given: Any) -> None:
        assert given["config"]["env"] == "CartPole-v1"
        assert trained.wait(30), "training waited for the tracker"

    def last(run: Any, record: Any) -> None:
        if isinstance(record, dict) and record["step"] >= 640:
            trained.set()

    fake = SimpleNamespace(init=init, log=lambda values, step: steps.append(step), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    result = shoal.train(
        "CartPole-v1",
        track="trackio",
        run_dir=tmp_path,
        total_timesteps=640,
        final_episodes=0,
        callbacks=[last],
        **TINY,
    )
    assert steps == [line["step"] for line in read_lines(result.path / "metrics.jsonl")]


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "/tmp/mlruns"])
def test_mlflow_in_files(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's store in files is no longer kept: refused with what would work."""
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match="MLflow keeps runs in a database"):
        exporter_of("mlflow", name="run", config={}, root=tmp_path)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("loss/value", "loss/value"),
        ("info/a b", "info/a b"),
        ("info/<b>é", "info/_b__"),
        ("../x", "_/x"),
        ("a//b", "a/_/b"),
        ("/x", "_/x"),
    ],
)
def test_mlflow_names(name: str, kept: str) -> None:
    assert mlflow_name(name) == kept


@pytest.mark.slow
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library itself, with a database: settings, every line at its step, and the end."""
    mlflow = pytest.importorskip("mlflow", reason="no MLflow: pip install 'shoal-rl[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own, of what it imports
        result = shoal.train(
            "CartPole-v1", track="mlflow", run_dir=tmp_path, total_timesteps=6400, final_episodes=0, **TINY
        )
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("shoal")
        (run,) = client.search_runs([experiment.experiment_id])
        history = client.get_metric_history(run.info.run_id, "speed/sps")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == str(result.path)
    assert (run.data.params["env"], run.data.params["seed"]) == ("CartPole-v1", "1")
    lines = read_lines(result.path / "metrics.jsonl")
    assert [(one.step, one.value) for one in history] == [(line["step"], line["speed/sps"]) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_trackers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries themselves, offline: a run begins and ends, and nothing is warned of but what they say."""
    pytest.importorskip(kind, reason=f"no {kind}: pip install 'shoal-rl[{kind}]'")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": f"{tmp_path}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRACKIO_DIR", f"{tmp_path / 'trackio'}")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        shoal.train("CartPole-v1", track=kind, run_dir=tmp_path, total_timesteps=640, final_episodes=0, **TINY)
    assert [f"{one.message}" for one in told if "gets nothing more" in f"{one.message}"] == []
