"""Functions of the user's own judge the answers to a task: in training, in evaluation, and from another's run."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal.experiment.trust import imported_by
from shoal.llm.settings import Language
from shoal.llm.tasks.task import Prompt
from shoal.run.log import read
from shoal.types import ConfigError
from tests.experiment.test_language import BATCH, SETTINGS, sha256, trained
from tests.llm.toy import Successor

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SHORT = f"{__name__}:first", f"{__name__}:short"


def first(prompt: Prompt, answer: str) -> float:
    """1 where it begins with the letter."""
    return float(answer[:1] == prompt.truth)


def short(prompt: Prompt, answer: str) -> float:
    """Less for longer answers; a field of the prompt says by how much."""
    return -prompt.fields.get("cost", 1.0) * len(answer)


def test_a_weighted_sum_of_functions_is_learned_from(folder: Path, tmp_path: Path) -> None:
    """With each of them in the metrics; a resumed run goes on with it to the bit, and evaluation judges so too."""
    given = {"language": {"scorers": [first, (short, 0.5), "task=0"], "held_out_scorer": first}}
    whole = trained(folder, tmp_path / "whole", 4, **given)
    part = trained(folder, tmp_path / "part", 2, **given)
    names = f'"{FIRST}",', f'"{SHORT}=0.5"', f'held_out_scorer = "{FIRST}"'
    assert all(name in (part.path / "config.toml").read_text() for name in names)
    again = shoal.resume(part.path, factory=Successor, total_timesteps=4 * BATCH, panel="none")
    assert sha256(again) == sha256(whole)
    for line in read(again.path / "metrics.jsonl")[:4]:  # before the window of returns is full
        assert {"rewards/first", "rewards/short", "rewards/task"} <= line.keys()
    line = read(again.path / "metrics.jsonl")[0]
    assert line["episode/return"] == pytest.approx(line["rewards/first"] + 0.5 * line["rewards/short"])
    agent = shoal.load(again.path, factory=Successor)
    score, lengths = agent.evaluate(episodes=8), {0.0, -0.5, -1.0, -1.5}
    assert set(score.returns.tolist()) <= lengths | {1 + value for value in lengths}
    # Of a stranger's run only trust helps: no command that opens it has options for its scorers.
    config = again.path / "config.toml"
    config.write_text(re.sub(r'seal = ".*"', 'seal = ""', config.read_text()))
    with pytest.raises(ConfigError, match=r"language\.scorers\.0.*--trust, or trust=True in Python$"):
        shoal.load(again.path, factory=Successor)
    assert shoal.load(again.path, factory=Successor, trust=True).answer("a?") == agent.answer("a?")


@pytest.mark.parametrize(
    ("scorers", "said"),
    [
        ([f"{FIRST}=much"], "has no number as its weight; write .*first=0.5"),
        ([FIRST, f"{FIRST}=2"], "twice; give it one weight"),
        ([f"{__name__}:nobody"], "has no 'nobody'"),
        (["first"], "no scorer 'first'; write package.module:function"),
        ([lambda prompt, answer: 0.0], "a lambda is not at the top level of a module.*move it"),
        ([(first, "much")], r"no pair of a scorer and a finite weight, such as \(my_rewards.short, 0.5\)"),
        ([(FIRST + "=2", 0.5)], "without a weight of its own"),
        ([partial(short, Prompt(0, ""))], "a partial has no name to be imported by"),
        ([short, (short, 0.5)], "twice; give it one weight"),
    ],
)
def test_wrong_scorers_are_refused(folder: Path, tmp_path: Path, scorers: list[Any], said: str) -> None:
    """In words, and no directory is left."""
    with pytest.raises(ConfigError, match=said):
        trained(folder, tmp_path, 1, language={"scorers": scorers})
    assert not list(tmp_path.glob("**/config.toml"))


def test_a_function_of_the_program_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a script or a notebook: nobody could import it; in training and as a held-out scorer."""
    monkeypatch.setattr(first, "__module__", "__main__")
    for given in ({"scorers": [first]}, {"held_out_scorer": first}):
        with pytest.raises(ConfigError, match=r"first is defined in the program that runs .*my_rewards\.py"):
            Language.with_names(given)


def test_a_file_without_answers_needs_scorers(folder: Path, tmp_path: Path) -> None:
    """It is refused before a directory is made."""
    (tmp_path / "free.jsonl").write_text('{"prompt": "a?"}\n')
    whole: dict[str, Any] = SETTINGS | {"model": str(folder), "run_dir": str(tmp_path), "total_timesteps": BATCH}
    with pytest.raises(ConfigError, match=r"scoring='none' leaves judging to language\.scorers"):
        shoal.train(f"jsonl:{tmp_path / 'free.jsonl'}", env_kwargs={"scoring": "none"}, **whole)
    assert not list(tmp_path.glob("**/config.toml"))


def test_a_game_says_itself_what_is_earned(folder: Path, tmp_path: Path) -> None:
    """Another scorer is refused."""
    whole: dict[str, Any] = SETTINGS | {"model": str(folder), "run_dir": str(tmp_path), "total_timesteps": BATCH}
    with pytest.raises(ConfigError, match="is a game, which says itself"):
        shoal.train("shoal.llm.tasks.nim:Nim", language={"scorers": [FIRST]}, **whole)


def test_scorers_of_a_configuration_are_names_that_it_imports() -> None:
    """Each of them; the task's own is none, and what names a task of shoal's own neither: a file of one is no code."""
    names = imported_by({"env": "reasoning-gym:chain_sum", "language": {"scorers": ["a.b:c=0.5", "task", "d:e"]}})
    assert list(names.values()) == ["a.b:c", "d:e"]
