"""Comparing runs: statistics and interpolation by hand, grouping, training what is missing, and bad input."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tomli_w

import shoal
from benchmarks import learn
from shoal.report.compare import Missing, compare
from shoal.report.groups import common_grid, differences, grouped, interpolate, read_curve
from shoal.report.run_table import print_runs, state_of
from shoal.report.signed.signed import write_signed
from shoal.report.statistics import bootstrap, iqm
from shoal.run.directory import RunDirectory
from shoal.types import ConfigError

LINES = [(100, 10.0), (200, 30.0), (300, 50.0)]


def write_run(
    root: Path,
    name: str,
    lines: list[tuple[int, float | None]] | list[tuple[int, float]] = LINES,
    *,
    seed: int = 1,
    env: str = "CartPole-v1",
    status: dict[str, Any] | None = None,
    **settings: Any,
) -> RunDirectory:
    path = root / name
    path.mkdir(parents=True)
    config: dict[str, Any] = {"env": env, "algo": "ppo", "total_timesteps": 300, "seed": seed, "run_dir": str(root)}
    config["algorithm"] = {"learning_rate": 0.001} | settings
    (path / "config.toml").write_text(tomli_w.dumps(config))
    records = [{"step": s, "episode/return": r, "time/elapsed": s / 100} for s, r in lines]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    full = {"state": "finished", "steps": 300, "seconds": 3.0, "return": 50.0, "greedy_return": 60.0}
    (path / "run.json").write_text(json.dumps(full if status is None else status))
    return RunDirectory(path)


def test_iqm() -> None:
    assert iqm(np.array([100.0, 1.0, 3.0, 2.0, 4.0])) == 3.0  # without 1 and 100
    assert iqm(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 80.0])) == 4.5  # of 3, 4, 5, 6
    assert iqm(np.array([90.0, 0.0, 4.0, 0.0, 8.0, 0.0, 30.0, 20.0])) == 8.0  # of 0, 4, 8, 20
    assert iqm(np.array([1.0, 2.0, 6.0])) == 3.0  # too few to leave one out
    assert iqm(np.array([[1.0, 4.0], [3.0, 8.0]])).tolist() == [2.0, 6.0]
    assert iqm(np.array([0.0, 1.0, 10.0, 11.0, 12.0])) == pytest.approx(22 / 3)  # of 1, 10, 11: whole runs only


def test_one_interquartile_mean() -> None:
    """The table of learning results quotes the mean that `shoal compare` draws."""
    runs = [
        {"claim": "c", "env": "E-v0", "algo": "ppo", "threshold": None, "seconds": 1.0, "steps": 8, "date": "today"}
        | {"seed": seed, "greedy_return": value}
        for seed, value in enumerate((0.0, 1.0, 10.0, 11.0, 12.0))
    ]
    runs.insert(0, runs[-1] | {"greedy_return": 99.0})  # a seed counts once, with its last run
    (row,) = learn.summary(runs)["rows"]
    assert "interquartile mean 7.3 (0.0 to 12.0)" in row["note"]


def test_bootstrap() -> None:
    rng = np.random.default_rng(0)
    low, high = bootstrap(np.array([[0.0, 10.0]]), rng)  # means 0, 5, 10 with chances 1/4, 1/2, 1/4
    assert (low, high) == (0.0, 10.0)
    low, high = bootstrap(np.array([[1.0], [3.0]]), rng)  # never across strata: always the mean of 1 and 3
    assert (low, high) == (2.0, 2.0)
    low, high = bootstrap(np.full((1, 5, 3), 7.0), rng)
    assert low.tolist() == high.tolist() == [7.0, 7.0, 7.0]
    same = [bootstrap(np.arange(12.0)[None], np.random.default_rng(3)) for _ in range(2)]
    assert same[0] == same[1]


def test_interpolation(tmp_path: Path) -> None:
    a = read_curve(write_run(tmp_path, "a", LINES))
    b = read_curve(write_run(tmp_path, "b", [(50, 0.0), (150, 100.0), (250, 0.0), (1000, 0.0)], seed=2))
    grid = common_grid([a, b], points=4)  # from 100 (where a begins) to 300 (where a ends)
    assert grid == pytest.approx([100, 166 + 2 / 3, 233 + 1 / 3, 300])
    assert interpolate([a, b], np.array([100.0, 150.0, 225.0])).tolist() == [[10.0, 20.0, 35.0], [50.0, 100.0, 25.0]]


def test_lines_without_a_return_are_left_out(tmp_path: Path) -> None:
    curve = read_curve(write_run(tmp_path, "a", [(100, None), (200, 30.0)]))
    assert curve.steps.tolist() == [200.0]
    assert curve.seconds.tolist() == [2.0]


def test_grouping(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, "a1", seed=1),
        write_run(tmp_path, "b1", seed=1, learning_rate=0.1),
        write_run(tmp_path, "a2", seed=2),
        write_run(tmp_path, "a2-again", [(100, 1.0)], seed=2),
    ]
    for number, run in enumerate(runs):
        os.utime(run.config, (1000 + number, 1000 + number))
    groups = grouped([read_curve(run) for run in runs])
    assert [group.label for group in groups] == ["learning_rate=0.001", "learning_rate=0.1"]
    assert [[c.directory.path.name for c in group.curves] for group in groups] == [["a1", "a2-again"], ["b1"]]
    assert grouped([read_curve(runs[0])])[0].label == "ppo"


def test_the_length_of_a_run_is_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs that were prolonged stand beside the others, which is said; of one seed the longest counts, which is too."""
    runs = [write_run(tmp_path, name, seed=seed) for name, seed in (("a1", 1), ("a2", 2), ("a1-long", 1), ("a3", 3))]
    longer = {"total_timesteps": 600, "stop_at": 90.0, "checkpoint_every": 10}
    for number, run in enumerate(runs):
        if number > 1:
            config = run.read_config() | longer
            run.config.write_text(tomli_w.dumps(config | {"unset": ["name"]}))
        os.utime(run.config, (1000 - number, 1000 - number))  # the longest is not the newest
    runs[0].config.write_text(tomli_w.dumps(runs[0].read_config() | {"unset": ["stop_at", "name"]}))
    runs[1].config.write_text(tomli_w.dumps(runs[1].read_config() | {"unset": ["stop_at", "name"]}))
    (group,) = compare([str(run.path) for run in runs], tmp_path, plot=tmp_path / "x.png")
    assert [curve.directory.path.name for curve in group.curves] == ["a1-long", "a2", "a3"]
    out = capsys.readouterr().out
    told = f"left out: {runs[0].path} has seed 1 of the same configuration, and so has a1-long, which is longer\n"
    assert told in out
    assert (
        "runs of ppo differ in total_timesteps: 600 (a1-long, a3), 300 (a2); schedules that follow it differ with it\n"
        in out
    )
    assert "runs of ppo differ in stop_at: 90.0 (a1-long, a3), unset (a2)\n" in out
    assert "runs of ppo differ in checkpoint_every: 10 (a1-long, a3), unset (a2)\n" in out


def test_which_run_of_a_seed_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that came to its end, before a longer one that was killed; then one as long as those of most seeds."""
    plans = {"trial": (1, 900, "finished"), "killed": (2, 900, "running")}
    plans |= {"one": (1, 300, "finished"), "two": (2, 300, "finished"), "three": (3, 300, "finished")}
    runs: dict[str, RunDirectory] = {}
    for name, (seed, steps, state) in plans.items():
        run = runs[name] = write_run(tmp_path, name, seed=seed, status={"state": state})
        run.config.write_text(tomli_w.dumps(run.read_config() | {"total_timesteps": steps}))
    (group,) = compare([str(run.path) for run in runs.values()], tmp_path, plot=tmp_path / "x.png")
    assert [curve.directory.path.name for curve in group.curves] == ["one", "two", "three"]
    told = "left out: {} has seed {} of the same configuration, and so has {}, which {}\n"
    out = capsys.readouterr().out
    assert told.format(runs["trial"].path, 1, "one", "is as long as those of most seeds") in out
    assert told.format(runs["killed"].path, 2, "two", "came to its end") in out
    assert "differ in" not in out


def test_a_run_that_was_prolonged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`resume --total-timesteps` takes no run out of its group."""
    tiny: Any = {"num_envs": 8, "num_steps": 16, "num_minibatches": 2, "total_timesteps": 640, "final_episodes": 2}
    paths = [
        shoal.train("CartPole-v1", run_dir=tmp_path, seed=s, name=f"s{s}", panel="none", **tiny).path for s in (1, 2)
    ]
    shoal.resume(paths[1], total_timesteps=1280, panel="none")
    (group,) = compare([str(path) for path in paths], tmp_path, plot=tmp_path / "x.png")
    assert len(group.curves) == 2
    assert "runs of ppo differ in total_timesteps: 640 (s1), 1280 (s2); " in capsys.readouterr().out
    runs = [RunDirectory(path) for path in paths]
    with pytest.raises(ConfigError, match=r"one length by `shoal resume RUN --total-timesteps N`"):
        write_signed(runs, tmp_path / "out", pdf=False)
    shoal.resume(paths[0], total_timesteps=1280, panel="none")
    assert write_signed(runs, tmp_path / "out", pdf=False)[0].exists()


def test_differences() -> None:
    """Each value with its runs, of many the first; seeds and places are none."""
    configs: dict[str, dict[str, Any]] = {f"r{at}": {"seed": at, "a": {"b": 1}, "name": f"n{at}"} for at in range(6)}
    assert differences(configs) == []
    configs["r0"]["a"] = {"b": 2}
    configs["r1"]["c"] = None
    configs["r2"]["c"] = [1, 2]
    assert differences(configs) == ["a.b: 2 (r0), 1 (r1 and 4 more)", "c: unset (r0 and 4 more), [1, 2] (r2)"]


def test_labels_of_several_algorithms(tmp_path: Path) -> None:
    """What one algorithm alone has is told among its own runs only; what all have, wherever it differs."""
    runs = [
        write_run(tmp_path, "a", clip_coef=0.1),
        write_run(tmp_path, "b", clip_coef=0.2),
        write_run(tmp_path, "c", learning_rate=0.5, alpha=0.9),
    ]
    config = runs[2].read_config() | {"algo": "own.algo"}
    runs[2].config.write_text(tomli_w.dumps(config))
    assert [group.label for group in grouped([read_curve(run) for run in runs])] == [
        "ppo, learning_rate=0.001, clip_coef=0.1",
        "ppo, learning_rate=0.001, clip_coef=0.2",
        "own.algo, learning_rate=0.5",
    ]


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where one works may be runs, too
    write_run(tmp_path, "runs/a1", [(100, 10.0), (300, 50.0)], seed=1)
    write_run(tmp_path, "runs/a2", [(100, 10.0), (300, 70.0)], seed=2)
    write_run(tmp_path, "runs/b1", [(100, 10.0), (500, 90.0)], learning_rate=0.1, status={"state": "failed"})
    plot = tmp_path / "plots" / "x.png"
    groups = compare(["runs"], tmp_path, plot=plot)
    out = capsys.readouterr().out
    assert [len(group.curves) for group in groups] == [2, 1]
    first, second = (next(line for line in out.splitlines() if f"={rate} " in line) for rate in ("0.001", "0.1"))
    assert "CartPole-v1, at 300 environment steps" in out
    assert first.split() == ["learning_rate=0.001", "2", "60.0", "50.0", "to", "70.0", "60.0", "300", "3.0"]
    assert second.split() == ["learning_rate=0.1", "1", "50.0", "-", "-", "500", "3.0"]
    assert "ends first" in out
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_bad_input(tmp_path: Path) -> None:
    plot = tmp_path / "x.png"
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare([], tmp_path, plot=plot)
    with pytest.raises(ConfigError, match="no run at nowhere; `shoal runs` lists them"):
        compare(["nowhere"], tmp_path, plot=plot)
    write_run(tmp_path, "empty", [])
    with pytest.raises(ConfigError, match="empty has no finished episode in its metrics; leave it out, or go on with"):
        compare(["empty"], tmp_path, plot=plot)
    write_run(tmp_path, "early", [(10, 1.0), (20, 1.0)])
    write_run(tmp_path, "late", seed=2)
    with pytest.raises(ConfigError, match=r"no steps in common: .*early ends at 20, before .*late at 100"):
        compare(["early", "late"], tmp_path, plot=plot)
    write_run(tmp_path, "other", env="Acrobot-v1")
    with pytest.raises(ConfigError, match=r"several environments cannot be compared: CartPole-v1 .*, Acrobot-v1"):
        compare(["late", "other"], tmp_path, plot=plot)
    assert not plot.exists()


def test_a_run_that_is_too_short_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One without episodes, one that ends before the others begin, one that begins after they have ended."""
    write_run(tmp_path, "runs/a", seed=1)
    write_run(tmp_path, "runs/b", seed=2)
    write_run(tmp_path, "runs/empty", [], seed=3)
    write_run(tmp_path, "runs/short", [(10, 1.0), (20, 1.0)], seed=4)
    write_run(tmp_path, "runs/late", [(400, 1.0), (500, 1.0)], seed=5)
    (group,) = compare([str(tmp_path / "runs")], tmp_path, plot=tmp_path / "x.png")
    assert [curve.seed for curve in group.curves] == [1, 2]
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out: ")]
    assert len(told) == 3
    assert "empty has no finished episode" in told[0]
    for name, steps in (("short", "10 to 20"), ("late", "400 to 500")):
        assert any(f"/{name} has episodes from step {steps}, which the others have not" in line for line in told)


class FakeTrainer:
    """Fills in one default, and writes a run instead of training."""

    def __init__(self) -> None:
        self.trained: list[tuple[int, float]] = []

    def complete(self, saved: dict[str, Any], /, **changes: Any) -> dict[str, Any]:
        algorithm = {"learning_rate": 0.5} | saved.get("algorithm", {})
        return {"algo": "ppo", "seed": 1, "total_timesteps": 300} | saved | {"algorithm": algorithm} | changes

    def train_all(self, missing: Sequence[Missing], /) -> list[Path]:
        return [self.train(one.config) for one in missing]

    def train(self, saved: dict[str, Any]) -> Path:
        assert saved["stop_at"] == math.inf
        rate, seed = saved["algorithm"]["learning_rate"], saved["seed"]
        self.trained.append((seed, rate))
        run = write_run(Path(saved["run_dir"]), f"{rate}-{seed}", seed=seed)
        run.config.write_text(tomli_w.dumps(saved))
        return run.path


def write_toml(path: Path, options: dict[str, Any] | None = None, **algorithm: Any) -> str:
    path.write_text(tomli_w.dumps({"env": "CartPole-v1"} | (options or {}) | {"algorithm": algorithm}))
    return str(path)


def test_configs_are_trained_where_runs_are_missing(tmp_path: Path) -> None:
    a, b = write_toml(tmp_path / "a.toml"), write_toml(tmp_path / "b.toml", learning_rate=0.25)
    trainer, root, plot = FakeTrainer(), tmp_path / "runs", tmp_path / "x.png"
    compare([a], root, plot=plot, seeds=1, trainer=trainer)
    assert trainer.trained == [(1, 0.5)]
    groups = compare([a, b], root, plot=plot, seeds=2, trainer=trainer)
    assert trainer.trained == [(1, 0.5), (2, 0.5), (1, 0.25), (2, 0.25)]
    assert [(group.label, len(group.curves)) for group in groups] == [
        ("learning_rate=0.5", 2),
        ("learning_rate=0.25", 2),
    ]
    (root / "0.5-2" / "run.json").write_text('{"state": "failed"}')
    compare([a], root, plot=plot, seeds=1, trainer=trainer)
    assert len(trainer.trained) == 4


def test_bad_configs_train_nothing(tmp_path: Path) -> None:
    trainer, plot = FakeTrainer(), tmp_path / "x.png"
    a, same = write_toml(tmp_path / "a.toml"), write_toml(tmp_path / "same.toml", learning_rate=0.5)
    longer = write_toml(tmp_path / "longer.toml", {"total_timesteps": 600})
    other = tmp_path / "other.toml"
    other.write_text('env = "Acrobot-v1"\n')
    bad = [
        ([a, longer], 5, r"equal total_timesteps \(.*a.toml: 300, .*longer.toml: 600\); make them equal"),
        ([a, str(other)], 5, "several environments cannot be compared"),
        ([a, same], 5, "two are the same configuration"),
        ([a], 0, "--seeds must be at least 1"),
        ([str(tmp_path / "none.toml")], 5, "no file"),
    ]
    for files, seeds, message in bad:
        with pytest.raises(ConfigError, match=message):
            compare(files, tmp_path / "runs", plot=plot, seeds=seeds, trainer=trainer)
    with pytest.raises(ConfigError, match="nothing to train it with"):
        compare([a], tmp_path / "runs", plot=plot)
    assert trainer.trained == []


def test_state_of_a_run_whose_process_is_gone(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = write_run(tmp_path, "dead", status={"state": "running", "pid": int(gone.stdout)})
    alive = write_run(tmp_path, "alive", status={"state": "running", "pid": os.getpid()})
    reused = write_run(tmp_path, "reused", status={"state": "running", "pid": os.getpid()})
    os.utime(reused.status, (1000, 1000))  # written before this process began
    first = write_run(tmp_path, "first", status={"state": "running", "pid": 1})
    found = [state_of(run) for run in (dead, alive, reused, first)]
    assert found == ["interrupted", "running", "interrupted", "interrupted"]


@pytest.mark.parametrize(
    ("pid", "later", "state"),
    [
        (os.getpid(), 0.5, "running"),
        (os.getpid(), -5, "interrupted"),
        (os.getpid(), 5, "interrupted"),
        (1, 0, "running"),
    ],
    ids=["own", "earlier", "later", "first"],
)
def test_running_is_the_process_that_began_when_the_status_says(
    pid: int, later: float, state: str, tmp_path: Path
) -> None:
    """Also where it is a container's first process; when the file was written tells nothing."""
    status = {"state": "running", "pid": pid, "process_started": psutil.Process(pid).create_time() + later}
    run = write_run(tmp_path, "a", status=status)
    assert state_of(run) == state
    os.utime(run.status, (1000, 1000))
    assert state_of(run) == state


def test_print_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_runs(tmp_path)
    assert capsys.readouterr().out == f"no runs below {tmp_path}; `shoal train CartPole-v1` makes one\n"
    status = {"state": "stopped", "steps": 1_234, "seconds": 1.25, "return": 20.0}
    for number, run in enumerate(
        [
            write_run(tmp_path, "a"),
            write_run(tmp_path, "b", seed=4, status=status),
            write_run(tmp_path, "c", status={}),
            write_run(tmp_path, "d"),
        ]
    ):
        os.utime(run.config, (1000 + number, 1000 + number))
    (tmp_path / "d" / "run.json").write_text("{")
    print_runs(tmp_path)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["run", "env", "algo", "seed", "steps", "return", "state", "seconds", "date"]
    assert lines[1][:8] == ["a", "CartPole-v1", "ppo", "1", "300", "60.0", "finished", "3.0"]
    assert lines[2][:8] == ["b", "CartPole-v1", "ppo", "4", "1,234", "20.0", "stopped", "1.2"]
    assert lines[3][:8] == ["c", "CartPole-v1", "ppo", "1", "-", "-", "unknown", "-"]
    assert lines[4][:2] == ["d", "unreadable"]
    assert " ".join(lines[5]).startswith(f"{tmp_path}/d/run.json is damaged; delete it (")


def test_neither_torch_nor_a_global_figure(tmp_path: Path) -> None:
    write_run(tmp_path, "a")
    program = f"""
import sys
from pathlib import Path
from shoal.report.compare import compare
compare(["a"], Path({str(tmp_path)!r}), plot=Path({str(tmp_path / "x.png")!r}))
sys.exit("torch" in sys.modules or "matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
