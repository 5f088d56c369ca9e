"""Who took over from whom, as `shoal runs` shows it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from shoal.report.lineage import lineage_of, takeovers_of
from shoal.report.run_table import print_runs
from shoal.run.directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

LINE: dict[str, Any] = {
    "step": 4000,
    "update": 100,
    "population/return/agent0": -500.0,
    "population/return/agent1": -120.5,
    "population/parent/agent0": 1.0,
    "population/p_value/agent0": 1e-4,
    "population/gamma/agent0": 0.988,
    "population/gamma/agent0/before": 0.5,
    "population/learning_rate/agent0": 0.0012,
    "population/learning_rate/agent0/before": 1e-6,
}
SAID = "agent0 (-500.0) took over from agent1 (-120.5): gamma 0.5 -> 0.988, learning_rate 1e-06 -> 0.0012"


def write_run(root: Path, lines: list[dict[str, Any]], population: str) -> RunDirectory:
    """A run directory with no more than what is read."""
    folder = root / "Acrobot-v1" / "dqn" / "a"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f'env = "Acrobot-v1"\nalgo = "dqn"\nseed = 1\n{population}')
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "run.json").write_text('{"state": "finished", "kept": "agent1", "steps": 9000}')
    return RunDirectory(folder)


def test_a_line_tells_a_takeover() -> None:
    (taken,) = takeovers_of([{"step": 1, "update": 1}, LINE])
    assert (taken.step, taken.child, taken.parent) == (4000, "agent0", "agent1")
    assert (taken.child_return, taken.parent_return) == (-500.0, -120.5)
    assert taken.settings == {"gamma": (0.5, 0.988), "learning_rate": (1e-6, 0.0012)}


def test_runs_shows_the_last_takeovers_or_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seven of them: five are shown below the table, and all with `lineage`."""
    write_run(tmp_path, [LINE | {"step": 1000 * i} for i in range(1, 8)], "[population]\nexploit_interval = 1000\n")
    print_runs(tmp_path)
    shown = capsys.readouterr().out.splitlines()
    assert shown[-7] == "Acrobot-v1/dqn/a: 7 takeovers, agent1 is kept"
    assert shown[-6] == "  (2 before; --lineage shows all)"
    assert shown[-5:] == [f"  step {i},000: {SAID}" for i in range(3, 8)]
    print_runs(tmp_path, lineage=True)
    assert capsys.readouterr().out.splitlines()[-7:] == [f"  step {i},000: {SAID}" for i in range(1, 8)]


@pytest.mark.parametrize("population", ["", "population = 3\n", "[population]\nexploit_interval = 0\n"])
def test_other_runs_have_none(population: str, tmp_path: Path) -> None:
    assert lineage_of(write_run(tmp_path, [LINE], population), most=None) == []


def test_a_damaged_line_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A parent that is no number ends the listing of that run, not the table."""
    damaged: dict[str, Any] = LINE | {"population/parent/agent0": None}
    write_run(tmp_path, [damaged], "[population]\nexploit_interval = 1000\n")
    print_runs(tmp_path)
    assert "Acrobot-v1/dqn/a" in capsys.readouterr().out
