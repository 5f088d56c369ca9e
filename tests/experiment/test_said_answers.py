"""What a language model says in training is kept: bounded, whole after a kill, harmless to read, and of no effect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal.cli import answers
from shoal.run import said as said_file
from shoal.run.said import append, read_answers
from shoal.types import ConfigError
from tests.experiment.test_language import BATCH, sha256, trained
from tests.experiment.test_language_scorers import first, short
from tests.llm.toy import Successor

if TYPE_CHECKING:
    from pathlib import Path


def line_of(update: int, text: str = "b") -> dict[str, Any]:
    one = {"text": text, "reward": None, "rewards": {"first": 1.0}, "tokens": 1, "truncated": True}
    return {"update": update, "step": 24 * update, "version": 0, "prompt": "a?", "answers": [one] * 16}


def test_a_run_keeps_what_was_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what each scorer gave, and with the same weights as a run that keeps nothing."""
    given: dict[str, Any] = {"scorers": [first, (short, 0.5)]}
    kept = trained(folder, tmp_path / "kept", 2, language=given)
    without = trained(folder, tmp_path / "without", 2, language=given | {"log_answers": False})
    assert sha256(kept) == sha256(without)
    shoal.resume(kept.path, factory=Successor, total_timesteps=3 * BATCH, panel="none")
    found = read_answers(kept.path)
    assert [one.update for one in found] == [1, 2, 3]
    assert [one.version for one in found] == [0, 1, 2]
    newest = found[-1]
    assert newest.prompt == "a ?"
    assert len(newest.answers) == 6
    for one in newest.answers:
        assert one.reward == pytest.approx(one.rewards["first"] + 0.5 * one.rewards["short"])
        assert 1 <= one.tokens <= 3
    answers.main([str(kept.path)], "")
    shown = capsys.readouterr().out
    assert shown.startswith("update 3, step 72, weights 2\n  a ?\n")
    assert shown.count("; first ") == 6
    with pytest.raises(ConfigError, match=r"keeps no answers .*log_answers is false"):
        answers.main([str(without.path)], "")


def test_lines_are_bounded_and_survive_kills_and_strangers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is turned over; what is torn, damaged, or said again after a resume is left out."""
    (tmp_path / "config.toml").write_text("")
    path = tmp_path / "answers.jsonl"
    for update in range(5):
        append(path, line_of(update))
    with path.open("ab") as file:
        file.write(b'{"update": 5, "step"')
    append(path, line_of(3, "\x1b[31mred\n"))
    assert [one.update for one in read_answers(tmp_path)] == [0, 1, 2, 3]
    answers.main([str(tmp_path)], "")
    assert "\\x1b[31mred\\n" in capsys.readouterr().out
    for bad in ({"update": -1}, {"answers": 3}, {"prompt": None}, {"answers": [{"text": "x"}]}):
        append(path, line_of(4) | bad)
    assert [one.update for one in read_answers(tmp_path)] == [0, 1, 2, 3]
    size = len(json.dumps(line_of(6))) + 1
    monkeypatch.setattr(said_file, "FILE_BYTES", 3 * size)
    for update in range(6, 30):
        append(path, line_of(update))
    assert len(list(tmp_path.glob("answers*"))) == 2
    assert all(found.stat().st_size <= 3 * size for found in tmp_path.glob("answers*"))
    assert read_answers(tmp_path, last=2) == read_answers(tmp_path)[-2:]
    assert read_answers(tmp_path)[-1].update == 29
    monkeypatch.setattr(said_file, "LINE_BYTES", size // 2)
    append(path, line_of(30))
    assert 0 < len(read_answers(tmp_path)[-1].answers) < 16
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="link"):
        append(path, line_of(31))
