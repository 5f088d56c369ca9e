"""The search: budgets, early stops, failures, and what is gone on with, with workers that train nothing."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from shoal.experiment.sweep import search as searching
from shoal.experiment.sweep.jobs import job_of
from shoal.experiment.sweep.results import front_of, importance_of, ranked, rows_of
from shoal.experiment.sweep.study import JOURNAL, open_study
from shoal.experiment.sweep.sweep import locked, show, sweep
from shoal.experiment.sweep.trial import Reports, read_end, run_folder, run_trial
from shoal.types import ConfigError, EnvError
from tests.experiment.sweep.fake import RATES, FakeWorkers, make_plan, search


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other without a pause, and nothing waits for a disk."""
    monkeypatch.setattr(searching, "LOOK_S", 0.0)
    monkeypatch.setattr(os, "fsync", lambda file: None)


def rate_of(config: dict[str, Any]) -> float:
    return config["algorithm"]["learning_rate"]


def near_three_thousandths(config: dict[str, Any], line: int) -> float:
    """500 at a learning rate of 0.003, less elsewhere, and more with each line."""
    return line / 20 * (500 - 200 * abs(math.log10(rate_of(config) / 0.003)))


def test_trials_run_side_by_side_up_to_the_budget_and_the_base_comes_first(tmp_path: Path) -> None:
    workers = FakeWorkers(near_three_thousandths)
    plan = make_plan(trials=8, prune=False)
    study, said = search(tmp_path, plan, workers)
    rows = rows_of(plan, study)
    assert len(rows) == len(said) == 8
    assert workers.most == 2
    assert rows[0].settings == {"learning_rate": 0.003}
    assert ranked(plan, rows)[0].number == 0
    assert [row.state for row in rows] == ["complete"] * 8
    assert said[0].startswith("[1/8] trial 0: return 500 in 10.0 s")


def test_a_trial_below_the_median_at_equal_steps_is_stopped(tmp_path: Path) -> None:
    plan = make_plan(trials=20)
    study, said = search(tmp_path, plan, FakeWorkers(near_three_thousandths), parallel=1)
    rows = rows_of(plan, study)
    stopped = [row for row in rows if row.state == "stopped early"]
    assert len(stopped) >= 4
    assert all(row.number >= 5 and row.seconds < 10 for row in stopped)
    assert all(row.seconds >= 2 for row in stopped)  # not before the third comparison
    assert "below the median" in " ".join(said)
    best = ranked(plan, rows)[0]
    assert best.returned == max(row.returned or 0 for row in rows)


def test_a_trial_that_fails_counts_with_its_cost_and_the_others_go_on(tmp_path: Path) -> None:
    def returned(config: dict[str, Any], line: int) -> float:
        if rate_of(config) < 0.001 and line == 4:
            raise FloatingPointError("no update is finite")
        return near_three_thousandths(config, line)

    plan = make_plan(trials=10, prune=False, max_failures=9)
    study, said = search(tmp_path, plan, FakeWorkers(returned))
    rows = rows_of(plan, study)
    failed = [row for row in rows if row.state == "failed"]
    assert failed
    assert len(rows) == 10
    assert {row.seconds for row in failed} == {2.0}
    assert any("failed after 2.0 s: no update is finite" in line for line in said)


def test_failures_in_a_row_stop_the_sweep_with_the_first_error(tmp_path: Path) -> None:
    def returned(config: dict[str, Any], line: int) -> float:
        raise FloatingPointError(f"bad at {rate_of(config)}")

    workers = FakeWorkers(returned)
    with pytest.raises(EnvError, match=r"3 trials in a row have failed, the first of them: trial 0: bad at 0\.003"):
        search(tmp_path, make_plan(trials=20, max_failures=3), workers, parallel=1)
    assert workers.interrupted
    assert len(workers.begun) == 3


def test_a_sweep_that_was_killed_goes_on_with_what_ran_and_loses_no_finished_trial(tmp_path: Path) -> None:
    """The third trial's fifth line ends the process; its job is begun again, and no other one is."""

    def killed(config: dict[str, Any], line: int) -> float:
        if len(dying.begun) == 4 and line == 5:
            raise KeyboardInterrupt
        return near_three_thousandths(config, line)

    dying = FakeWorkers(killed)
    plan = make_plan(trials=8, prune=False)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, plan, dying, parallel=2)
    journal = tmp_path / JOURNAL
    with journal.open("ab") as file:
        file.write(b'{"op_code": 5, "torn')
    before = {row.number: row for row in rows_of(plan, open_study(tmp_path, plan)) if row.values}
    workers = FakeWorkers(near_three_thousandths)
    study, _ = search(tmp_path, plan, workers)
    rows = rows_of(plan, study)
    assert sorted(before) == [0, 1]
    assert workers.begun[:2] == ["0002", "0003"]
    assert len(workers.begun) == 6
    assert [row.number for row in rows if row.values] == list(range(8))
    assert all(rows[number] == row for number, row in before.items())


def test_seconds_to_the_threshold_prefers_what_is_solved_sooner_and_stops_the_slow(tmp_path: Path) -> None:
    plan = make_plan(trials=10, objective="seconds_to_threshold", prune=False, patience=1.5)
    assert plan.threshold == 475

    class Timed(FakeWorkers):
        """A small learning rate takes longer for its lines."""

        def _go_on(self, job: Any, line: int) -> bool:
            self._seconds = 0.03 / rate_of(job.configs[0])
            return super()._go_on(job, line)

    study, said = search(tmp_path, plan, Timed(lambda config, line: 500.0), parallel=1)
    rows = rows_of(plan, study)
    best = ranked(plan, rows)[0]
    assert best.solved == 1
    assert best.values == (best.seconds,)
    assert best.seconds <= 10.0  # what the base takes, at 0.003
    assert "slower than 1.5 times the best trial" in " ".join(said)
    fastest = 1e9
    for row in rows:
        line = 0.03 / float(str(row.settings["learning_rate"])) / 20
        assert row.seconds <= 1.5 * fastest + 2 * line
        fastest = min(fastest, row.seconds) if row.values else fastest


def test_two_objectives_give_a_front_and_nothing_is_stopped(tmp_path: Path) -> None:
    plan = make_plan(trials=6, objective=["return", "seconds"])
    study, _ = search(tmp_path, plan, FakeWorkers(near_three_thousandths))
    rows = rows_of(plan, study)
    assert all(len(row.values) == 2 for row in rows)
    front = front_of(rows)
    assert [row.number for row in front] == [0]  # all take ten seconds
    assert ranked(plan, rows)[0].number == 0


def test_importance_names_the_setting_that_matters(tmp_path: Path) -> None:
    space = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "vf_coef": {"low": 0.1, "high": 1.0}}
    plan = make_plan(space, trials=11, prune=False)
    study, _ = search(tmp_path, plan, FakeWorkers(near_three_thousandths))
    found = importance_of(plan, study, rows_of(plan, study))
    assert next(iter(found)) == "learning_rate"
    assert sum(found.values()) == pytest.approx(1)


def test_the_runs_of_a_trial_are_compared_with_those_of_the_same_seed(tmp_path: Path) -> None:
    plan = make_plan(seeds=2, trials=2)
    job = job_of(plan, tmp_path, "0000", {"learning_rate": 0.001})
    assert [config["seed"] for config in job.configs] == [1, 2]
    assert [config["name"] for config in job.configs] == ["0000-seed1", "0000-seed2"]
    study, _ = search(tmp_path, plan, FakeWorkers(near_three_thousandths))
    steps = list(study.trials[0].intermediate_values)
    assert steps == [25_000 * rung for rung in range(1, 21)]  # of 500,000, the first run's


def test_show_prints_what_a_sweep_that_goes_on_has_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(trials=4, prune=False)
    search(tmp_path, plan, FakeWorkers(near_three_thousandths))
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"torn')
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with locked(tmp_path):
        found = show(tmp_path)
    said = capsys.readouterr().out
    assert "4 trials (4 complete)" in said
    assert "not confirmed yet: the sweep is not over" in said
    assert (found.best_trial, found.confirmed) == (None, None)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_a_stranger_left_in_a_directory_is_refused(tmp_path: Path) -> None:
    plan = make_plan(trials=2)
    folder, other = tmp_path / "sweep", tmp_path / "other"
    other.mkdir()
    search(folder, plan, FakeWorkers(near_three_thousandths))
    job = job_of(plan, folder, "0000", {})
    job.file("json").write_text('{"state": "great", "why": "", "seconds": 1, "runs": []}')
    with pytest.raises(ConfigError, match=r"0000\.json is damaged .*delete it"):
        read_end(job)
    job.file("jsonl").write_text('{"run": 0, "step": 5, "seconds": 1.0, "return": 3.0}\nnot\n[1]\n{"run": 1}\n{"torn')
    reports = Reports(job)
    assert reports.new() == [{"run": 0.0, "step": 5.0, "seconds": 1.0, "return": 3.0}]
    assert reports.new() == []
    there = run_folder(job.configs[0])
    there.mkdir(parents=True)
    (there / "config.toml").write_text('env = "evil:Env"\n')
    write = job.file("json")
    write.unlink()
    run_trial(asdict(job))
    ended = read_end(job)
    assert ended is not None
    assert ended.state == "failed"
    assert "names other code than the sweep does" in ended.why
    shutil.rmtree(folder / "jobs")
    (folder / "jobs").symlink_to(other)
    with pytest.raises(ConfigError, match="is a link"):
        sweep(folder, panel="none")
    (folder / JOURNAL).unlink()
    (folder / JOURNAL).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a link"):
        show(folder)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("no journal\nat all\n")
    with pytest.raises(ConfigError, match=r"study\.journal is damaged"):
        open_study(tmp_path, make_plan())


@pytest.mark.parametrize("share", [0.0, 0.35, 0.6, 0.97])
def test_a_journal_that_lost_its_end_loses_no_finished_trial(tmp_path: Path, share: float) -> None:
    """In the middle of a line, as after a power failure, or more of it: jobs say what was drawn for them."""
    plan = make_plan(RATES | {"gamma": {"low": 0.9, "high": 0.99}}, trials=4, prune=False)
    study, _ = search(tmp_path, plan, FakeWorkers(near_three_thousandths), parallel=1)
    before = [(row.settings, row.values, row.state) for row in rows_of(plan, study)]
    (tmp_path / "jobs" / "0003.json").unlink()  # this one had not ended
    journal = tmp_path / JOURNAL
    os.truncate(journal, int(journal.stat().st_size * share))
    workers = FakeWorkers(near_three_thousandths)
    study, _ = search(tmp_path, plan, workers, parallel=1)
    assert [(row.settings, row.values, row.state) for row in rows_of(plan, study)] == before
    assert workers.begun == (["0003"] if share < 0.97 else [])


def test_a_journal_takes_no_result_of_other_settings(tmp_path: Path) -> None:
    plan = make_plan(trials=3, prune=False)
    search(tmp_path, plan, FakeWorkers(near_three_thousandths), parallel=1)
    (tmp_path / JOURNAL).unlink()
    kept = tmp_path / "jobs" / "0001.chosen"
    kept.write_text(kept.read_text().replace("learning_rate", "learning_rites"))
    with pytest.raises(ConfigError, match=r"study\.journal has lost what was drawn"):
        search(tmp_path, plan, FakeWorkers(near_three_thousandths), parallel=1)
