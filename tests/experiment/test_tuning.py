"""Tuning for speed: what is measured, chosen and written."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from shoal.experiment import tuning
from shoal.experiment.experiment import Experiment, read_file
from shoal.experiment.probe import Probed, least_rate
from shoal.experiment.speed_file import check_free, table_of, write_speed_file
from shoal.experiment.tuning import counts_up_to, places, tune, with_twice_the_cores
from shoal.run.bottleneck import Engine, Spent
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from pathlib import Path

SMALL: dict[str, Any] = {"num_envs": 4, "num_steps": 16, "num_minibatches": 1, "update_epochs": 1}


def experiment(**settings: Any) -> Experiment:
    return Experiment.new("CartPole-v1", settings=SMALL | settings)


def probed(steps_per_s: float, spent: Spent | None = None, **engine: Any) -> Probed:
    return Probed(steps_per_s, spent or Spent(10.0, {"environment": 5.0}), Engine(**engine), native_rows=True)


def test_the_least_of_three_windows() -> None:
    """A quarter is warm-up; then 200, 100 and 400 steps a second."""
    marks = [(0.0, 0), (2.0, 5000), (4.0, 5400), (6.0, 5600), (8.0, 6400)]
    assert least_rate(marks) == 100.0
    assert least_rate([(0.0, 0), (10.0, 500)]) == 50.0
    with pytest.raises(EnvError, match="not even two updates"):
        least_rate([(0.0, 10)])


def test_counts() -> None:
    assert [counts_up_to(most) for most in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_twice_the_cores() -> None:
    """Half of the time acts and steps: 3/4 of the time is left. Ahead, the learner stops waiting."""
    spent = Spent(10.0, {"environment": 4.0, "acting": 1.0, "learning": 5.0})
    assert with_twice_the_cores(probed(300.0, spent), 300.0) == pytest.approx(400.0)
    waits = Spent(10.0, {}, learner_waits=0.25, actors_wait=0.0)
    ahead = probed(300.0, waits, schedule="async", actors=2)
    assert with_twice_the_cores(ahead, 300.0) == pytest.approx(400.0)
    waits = Spent(10.0, {}, learner_waits=0.9, actors_wait=0.0)
    assert with_twice_the_cores(probed(1.0, waits, schedule="async", actors=2), 300.0) == pytest.approx(600.0)


def fake(monkeypatch: pytest.MonkeyPatch, rates: dict[int, list[float]]) -> list[dict[str, int]]:
    """Probes that take no time: rates by number of threads, one after another; actors fail."""
    asked: list[dict[str, int]] = []

    def made(given: Experiment, seconds: float, *, limit_s: float) -> Probed:
        options = given.options
        asked.append({"threads": options.threads(), "actors": options.actors})
        assert 0 < seconds <= limit_s
        if options.actors:
            raise EnvError("an actor died\x1b[0m")
        return probed(rates[options.threads()].pop(0))

    monkeypatch.setattr(tuning, "probe", made)
    monkeypatch.setattr(tuning, "cores", lambda: 2)
    return asked


def test_the_fastest_is_chosen_and_confirmed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A candidate that fails is a row; the others go on."""
    fake(monkeypatch, {2: [100.0, 90.0], 1: [200.0, 180.0]})
    tuned = tune(experiment(), seconds=20)
    assert [(row.name, row.steps_per_s) for row in tuned.rows] == [
        ("as they are", 90.0),
        ("actors=2", 0.0),
        ("num_threads=1", 180.0),
    ]
    assert (tuned.best.name, tuned.gain) == ("num_threads=1", 2.0)
    lines = table_of(tuned)
    assert lines[:4] == [
        "settings            steps/s  against now",
        "as they are              90  1.00 x",
        "actors=2                  -  an actor died\\x1b[0m",
        "num_threads=1           180  2.00 x  chosen",
    ]
    assert "cores instead of" in lines[4]
    path = tmp_path / "speed.toml"
    write_speed_file(path, experiment(), tuned)
    assert tomllib.loads(path.read_text())["num_threads"] == 1
    read = Experiment.of_file(read_file(path, algo=None, preset=None), given={"env": "CartPole-v1"})
    assert read.options == experiment(num_threads=1).options
    assert read.config == experiment().config
    check_free(path)  # it may be written again


def test_noise_chooses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, {2: [100.0, 100.0], 1: [150.0, 104.0]})
    tuned = tune(experiment(), seconds=20)
    assert tuned.best.name == "as they are"
    assert tuned.gain == 1.0


def test_what_is_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake(monkeypatch, {1: [100.0]})
    tune(experiment(num_threads=1, actors=0, backend="native"), seconds=20)
    assert asked == [{"threads": 1, "actors": 0}]


def test_free_settings_are_varied(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, {1: [100.0] * 20})
    tuned = tune(experiment(num_threads=1, backend="native"), seconds=20, free=("schedule", "num_envs", "act_block"))
    assert [row.name for row in tuned.rows[1:]] == [
        "schedule=overlap",
        "actors=1 schedule=async",
        "actors=2 schedule=async",
        "num_envs=8",
        "num_envs=16",
        "act_block=32",
        "act_block=128",
        "act_block=256",
    ]


def test_time_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings as they are always have their turn; what there was no time for is counted."""
    fake(monkeypatch, {2: [100.0], 1: [200.0]})
    tuned = tune(experiment(), seconds=0.2)
    assert [row.name for row in tuned.rows] == ["as they are"]
    assert tuned.unmeasured == 2
    assert "there was no time for 2 more" in table_of(tuned)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="free may be schedule, num_envs, act_block, got 'gamma'"):
        tune(experiment(), free=("gamma",))
    with pytest.raises(ConfigError, match="seconds must be above 0"):
        tune(experiment(), seconds=0)
    with pytest.raises(ConfigError, match="what is measured is this machine"):
        tune(experiment(fleet="local"))
    mine = tmp_path / "mine.toml"
    mine.write_text("seed = 1\n")
    with pytest.raises(ConfigError, match="tune-speed did not write it; name another file: --out"):
        check_free(mine)
    with pytest.raises(ConfigError, match="no such folder"):
        check_free(tmp_path / "nowhere" / "speed.toml")


def test_settings_that_do_not_train_are_said() -> None:
    with pytest.raises(ConfigError, match=r"the settings as they are do not train: .*num_minibatches"):
        tune(experiment(num_minibatches=1000), seconds=20)


def test_cartpole_is_measured() -> None:
    """With a tiny budget, on real rows, which are closed."""
    told: list[str] = []
    tuned = tune(
        experiment(num_threads=1, backend="native"),
        seconds=4,
        free=("act_block",),
        tell=lambda row: told.append(row.name),
    )
    assert told[0] == "as they are"
    assert tuned.rows[0].steps_per_s > 100
    assert not tuned.rows[0].error


def test_places_of_environments_that_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native rows live in actors alone; Python's in workers too, more than cores where they sleep."""
    monkeypatch.setattr(tuning, "cores", lambda: 2)
    python = Probed(1.0, Spent(1.0, {}), Engine(), native_rows=False)
    given = experiment(num_envs=16)
    assert places(given, probed(1.0), {}) == [{"actors": 2}]
    workers = [{"backend": "workers", "num_workers": count} for count in (2, 4, 8)]
    actors = [{"actors": count} for count in (2, 4, 8)]
    assert places(given, python, {}) == [workers[0], actors[0]]
    assert places(given, replace(python, sleeps=True), {}) == [*workers, *actors]
    few = experiment(num_envs=3)
    assert places(few, replace(python, sleeps=True), {})[1] == {"backend": "workers", "num_workers": 3}
