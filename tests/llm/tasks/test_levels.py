"""Tasks in levels: which prompt is of which, whose scores are asked, and what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from shoal.llm.tasks.dialogue import is_dialogue
from shoal.llm.tasks.levels import levels_of
from shoal.llm.tasks.registry import make_task
from shoal.types import ConfigError
from tests.llm.tasks.test_registry import seeded

LEVELS = [{"max_terms": 2}, {"min_terms": 5, "max_terms": 6}]


def test_prompts_take_turns_and_are_scored_by_their_own_task() -> None:
    task: Any = make_task("reasoning-gym:chain_sum", kwargs={"max_digits": 1, "min_digits": 1, "levels": LEVELS})
    easy = make_task("reasoning-gym:chain_sum", kwargs={"max_digits": 1, "min_digits": 1, "max_terms": 2})
    assert (task.name, levels_of(task), is_dialogue(task)) == ("reasoning-gym:chain_sum", 2, False)
    assert [task.prompt(index).question for index in (0, 2, 4)] == [easy.prompt(index).question for index in range(3)]
    assert all("+" in task.prompt(index).question or "-" in task.prompt(index).question for index in (1, 3))
    assert len(task.prompt(1).question) > len(task.prompt(0).question)
    for index in range(6):
        prompt = task.prompt(index)
        assert prompt.index == index
        assert task.score(prompt, task.solution(prompt)) == 1.0
        assert task.score(prompt, "no number") == 0.0


def test_functions_have_levels_too_and_go_to_other_processes() -> None:
    """A function's task is given its own number, so that a truth that it looks up is that of its prompt."""
    task: Any = make_task(seeded, seed=3, kwargs={"levels": [{"length": 1}, {"length": 2}]})
    again = pickle.loads(pickle.dumps(task))
    for one in (task, again):
        assert [one.prompt(index).question for index in range(4)] == ["3", "3", "4", "4"]
        assert one.score(one.prompt(3), "4") == 1.0


def test_held_out_levels_have_other_prompts() -> None:
    kwargs: dict[str, object] = {"levels": LEVELS}
    task = make_task("reasoning-gym:chain_sum", kwargs=kwargs)
    other = make_task("reasoning-gym:chain_sum", kwargs=kwargs, held_out=True)
    assert task.prompt(1).question != other.prompt(1).question
    assert kwargs == {"levels": LEVELS}


@pytest.mark.parametrize("levels", [3, [], [{"max_terms": 2}], [{"max_terms": 2}, {}], ["max_terms", "min_terms"]])
def test_levels_that_are_none_are_refused(levels: object) -> None:
    with pytest.raises(ConfigError, match="levels is a list of tables"):
        make_task("reasoning-gym:chain_sum", kwargs={"levels": levels})


def test_a_level_with_a_keyword_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="no keyword 'max_term'"):
        make_task("reasoning-gym:chain_sum", kwargs={"levels": [{"max_terms": 2}, {"max_term": 3}]})


class OwnLevels:
    """A task that has levels itself."""

    name = "own"

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def prompt(self, index: int) -> Any:
        raise NotImplementedError

    def score(self, prompt: Any, answer: str) -> float:
        raise NotImplementedError


def test_a_function_with_a_parameter_of_that_name_reads_it_itself() -> None:
    assert levels_of(make_task(OwnLevels, kwargs={"levels": 3})) == 3
