"""Games of TextArena as conversations."""

from __future__ import annotations

import random
import re
import sys

import pytest

from shoal.llm.tasks.check_task import check_task
from shoal.llm.tasks.dialogue import answer_of, converse, is_dialogue
from shoal.llm.tasks.task import Dialogue, Message, Prompt
from shoal.types import ConfigError


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from shoal.llm.tasks.textarena import TextArenaGame

    monkeypatch.setitem(sys.modules, "textarena", None)
    with pytest.raises(ConfigError, match="pip install textarena"):
        TextArenaGame("GuessTheNumber-v0")


def halve(_: Prompt, turns: tuple[Message, ...]) -> str:
    low, high = 1, 20
    for guess, told in zip(turns[::2], turns[1::2], strict=True):
        number = int(guess.content[1:-1])
        low, high = (number + 1, high) if "higher" in told.content else (low, number - 1)
    return f"[{(low + high) // 2}]"


@pytest.mark.filterwarnings("ignore")
def test_a_number_is_guessed() -> None:
    pytest.importorskip("textarena")
    from shoal.llm.tasks.textarena import TextArenaGame

    task = TextArenaGame("GuessTheNumber-v0", seed=3)
    assert isinstance(task, Dialogue)
    assert is_dialogue(task)
    random.seed(0)
    expected = random.random()
    random.seed(0)
    for index in range(3):
        prompt = task.prompt(index)
        turns = converse(task, prompt, halve)
        assert len(turns) <= 9
        assert task.score(prompt, answer_of(task, prompt, turns)) == 1.0
        assert turns == converse(task, prompt, halve)
    assert random.random() == expected
    unfinished = (Message("assistant", "[1]"),)
    assert task.score(task.prompt(0), answer_of(task, task.prompt(0), unfinished)) == 0.0
    assert "determinism" in {
        finding.name for finding in check_task(task, prompts=3).findings if finding.verdict == "ok"
    }


def first_free(seen: str) -> str:
    return re.findall(r"'(\[\d\])'", seen)[0]


@pytest.mark.filterwarnings("ignore")
def test_a_game_of_two() -> None:
    pytest.importorskip("textarena")
    from shoal.llm.tasks.textarena import TextArenaGame

    task = TextArenaGame("TicTacToe-v0", num_players=2, opponent=first_free)
    prompt = task.prompt(0)
    turns = converse(task, prompt, lambda _, turns: ("[4]", "[2]", "[6]")[len(turns) // 2])
    assert [turn.role for turn in turns] == ["assistant", "user"] * 2 + ["assistant"]
    assert task.score(prompt, answer_of(task, prompt, turns)) == 1.0


@pytest.mark.filterwarnings("ignore")
def test_wrong_games() -> None:
    pytest.importorskip("textarena")
    from shoal.llm.tasks.textarena import TextArenaGame

    with pytest.raises(ConfigError, match="no such game; did you mean GuessTheNumber-v0"):
        TextArenaGame("GuesTheNumber-v0")
    with pytest.raises(ConfigError, match="with num_players=1 does not begin: AssertionError"):
        TextArenaGame("TicTacToe-v0")
    with pytest.raises(ConfigError, match="needs an opponent"):
        TextArenaGame("TicTacToe-v0", num_players=2)
    with pytest.raises(ConfigError, match="max_turns must be at least 1"):
        TextArenaGame("TicTacToe-v0", max_turns=0)
    with pytest.raises(ConfigError, match="seed must be between"):
        TextArenaGame("TicTacToe-v0", seed=-1)
