"""The tasks of reasoning-gym: equal prompts for equal settings, and no pay for what contains the answer."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from shoal.llm.tasks import reasoning
from shoal.llm.tasks.reasoning import BLOCK, HASHED, SHARING, ReasoningTask, names
from shoal.llm.tasks.task import Task
from shoal.types import ConfigError

SMALL = {"max_terms": 2, "max_digits": 1}


def chain_sum(**given: Any) -> ReasoningTask:
    return ReasoningTask("chain_sum", seed=3, settings=SMALL, **given)


def test_prompts_are_those_of_one_endless_data_set() -> None:
    import reasoning_gym

    task = chain_sum()
    assert isinstance(task, Task)
    whole = reasoning_gym.create_dataset("chain_sum", seed=3, size=10 * BLOCK, **SMALL)
    for index in (0, 1, BLOCK - 1, BLOCK, 7 * BLOCK + 3, 5):
        prompt, item = task.prompt(index), whole[index]
        assert (prompt.index, prompt.question, prompt.truth) == (index, item["question"], item["answer"])
    assert task.prompt(10**12) == chain_sum().prompt(10**12)


def test_other_seeds_give_other_prompts() -> None:
    first = [chain_sum().prompt(index).question for index in range(20)]
    other = ReasoningTask("chain_sum", seed=1_000_000_010, settings=SMALL)
    assert first != [other.prompt(index).question for index in range(20)]


def test_what_contains_the_answer_is_not_paid() -> None:
    """The library's own scorer pays 0.5 for 44 and 0.2 for `not 4` where 4 is right."""
    task, judged = chain_sum(), chain_sum(scoring="task")
    prompt = next(prompt for prompt in map(task.prompt, range(1000)) if prompt.truth == "4")
    entry = judged.prompt(prompt.index)
    answers = ("4", " 4\n", "4<|im_end|>", "44", "not 4", "5", "")
    assert [task.score(prompt, answer) for answer in answers] == [1, 1, 1, 0, 0, 0, 0]
    assert [judged.score(entry, answer) for answer in answers] == [1, 1, 1, 0.5, 0.2, 0, 0]
    assert task.solution(prompt) == judged.solution(entry) == "4"


def test_part_of_an_answer() -> None:
    task = chain_sum(extract="last_number")
    prompt = task.prompt(0)
    assert task.score(prompt, f"Let me see: 1 and 2. It is {prompt.truth}.</s>") == 1
    assert task.score(prompt, "I do not know") == 0


def test_true_and_false_are_compared() -> None:
    """The library's own scorer pays 1 for any text that is not empty."""
    task = ReasoningTask("game_of_life_halting")
    prompt = task.prompt(0)
    assert prompt.truth in ("True", "False")
    wrong = "True" if prompt.truth == "False" else "False"
    assert [task.score(prompt, answer) for answer in (prompt.truth, wrong, "x")] == [1, 0, 0]


def test_several_right_answers_are_judged() -> None:
    settings = {"min_numbers": 2, "max_numbers": 2, "max_value": 20}
    task = ReasoningTask("countdown", settings=settings)
    prompt = task.prompt(0)
    assert json.loads(json.dumps(prompt.truth)) == prompt.truth
    right = task.solution(prompt)
    assert task.score(prompt, right) == 1
    assert task.score(prompt, f"({right})") == 1
    assert task.score(prompt, "") == 0
    assert task.score(prompt, "1") < 0.1


def test_a_scorer_that_raises_earns_nothing_and_is_counted() -> None:
    task = ReasoningTask("prime_factorization")
    prompt = task.prompt(0)
    with pytest.warns(UserWarning, match="own scorer failed on an answer to prompt 0.*ValueError.*num_failures"):
        assert task.score(prompt, "no idea") == 0
    assert task.score(prompt, "nor now") == 0
    assert task.num_failures == 2
    assert task.score(prompt, task.solution(prompt)) == 1


def test_a_scorer_that_gives_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    task = chain_sum(scoring="task")
    prompt = task.prompt(0)
    for value in (None, float("nan"), 2.0, "1"):
        task.num_failures = 0
        monkeypatch.setattr(task._first, "score_answer", lambda *_, value=value: value)
        with pytest.warns(UserWarning, match="own scorer failed"):
            assert task.score(prompt, "4") == 0


def test_answers_that_are_not_known() -> None:
    task = ReasoningTask("rush_hour")
    prompt = task.prompt(0)
    with pytest.raises(ConfigError, match="without knowing one"):
        task.solution(prompt)
    with pytest.raises(ConfigError, match="use scoring='task'"):
        ReasoningTask("rush_hour", scoring="exact").prompt(0)


def test_tasks_that_make_all_items_at_once_have_no_end() -> None:
    task = ReasoningTask("list_functions", seed=1)
    assert task.prompt(3 * BLOCK) == ReasoningTask("list_functions", seed=1).prompt(3 * BLOCK)
    assert task.prompt(3 * BLOCK).question != task.prompt(0).question


@pytest.mark.parametrize("dataset", SHARING)
def test_the_process_own_generators_are_left_alone(dataset: str) -> None:
    task = ReasoningTask(dataset, seed=1)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    expected = random.random(), np.random.random()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    prompts = [task.prompt(index) for index in range(12)]
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002
    assert [task.prompt(index) for index in reversed(range(12))] == prompts[::-1]


def test_one_word_alone_is_right() -> None:
    task = ReasoningTask("tsumego")
    prompt = task.prompt(0)
    assert isinstance(prompt.truth, str)
    assert [task.score(prompt, answer) for answer in (prompt.truth, f"not {prompt.truth}")] == [1, 0]


def test_items_that_cannot_be_made_are_tried_with_other_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    task = chain_sum()
    kind: Any = type(task._first)
    made = kind.__getitem__

    def fails(dataset: Any, place: int) -> Any:
        if dataset.seed < reasoning.RESEED:
            raise IndexError("Dataset exhausted")
        return made(dataset, place)

    monkeypatch.setattr(kind, "__getitem__", fails)
    assert task.prompt(0) == chain_sum().prompt(0)
    monkeypatch.setattr(kind, "__getitem__", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match=r"came to no prompt 1 with seed=3 in 5 attempts \(ZeroDivisionError"):
        task.prompt(1)


def test_it_goes_to_other_processes_as_its_settings() -> None:
    task = ReasoningTask("chain_sum", seed=3, scoring="task", extract="tag", settings=SMALL)
    task.prompt(BLOCK)
    packed = pickle.dumps(task)
    assert len(packed) < 500
    twin = pickle.loads(packed)
    assert twin.prompt(5) == task.prompt(5)
    assert (twin.scoring, twin.extract) == ("task", "tag")


@pytest.mark.parametrize(
    ("dataset", "given", "message"),
    [
        ("chain_summ", {}, "no task 'chain_summ'; did you mean chain_sum"),
        ("zzz", {}, "no task 'zzz'; it has 1.., such as chain_sum"),
        ("composite", {}, "mixture of other tasks"),
        ("chain_sum", {"settings": {"max_term": 3}}, "no keyword 'max_term'; it takes min_terms, max_terms"),
        ("chain_sum", {"settings": {"size": 3}}, "no keyword 'size'"),
        ("chain_sum", {"settings": {"max_terms": 0}}, "refuses max_terms=0: AssertionError: max_terms must be"),
        ("chain_sum", {"settings": {"max_terms": "x"}}, "refuses max_terms='x': TypeError"),
        ("chain_sum", {"scoring": "own"}, "scoring is one of auto, exact, task, got 'own'"),
        ("chain_sum", {"extract": "own"}, "extract is one of whole, last_line"),
        ("chain_sum", {"seed": -1}, "seed must be between 0 and"),
        ("chain_sum", {"seed": 2**31}, "seed must be between 0 and"),
    ],
)
def test_wrong_settings(dataset: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReasoningTask(dataset, **given)


def test_negative_prompts() -> None:
    with pytest.raises(ValueError, match="counted from 0"):
        chain_sum().prompt(-1)


def test_items_that_differ_from_process_to_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(ConfigError, match=r"ransom_note.*PYTHONHASHSEED=0"):
        ReasoningTask("ransom_note")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert ReasoningTask("ransom_note").prompt(0).truth in ("True", "False")


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ConfigError, match=r'pip install "shoal-rl\[llm\]"'):
        chain_sum()
    with pytest.raises(ConfigError, match="pip install"):
        names()


def test_names() -> None:
    assert len(names()) > 100
    assert set(HASHED) < set(names())


PROGRAM = """
import hashlib, json, sys
from shoal.llm.tasks.reasoning import HASHED, ReasoningTask, names
for name in names():
    if name not in ("composite", *HASHED):
        task = ReasoningTask(name, seed=5)
        slow = name in ("intermediate_integration", "puzzle24", "zebra_puzzles", "futoshiki", "countdown", "sokoban")
        prompts = [(p.question, p.truth) for p in map(task.prompt, range(3 if slow else 12))]
        print(name, hashlib.sha256(json.dumps(prompts).encode()).hexdigest())
"""


@pytest.mark.slow
def test_every_task_asks_the_same_in_every_process() -> None:
    said: list[str] = []
    for seed in ("1", "2"):
        command = ["env", f"PYTHONHASHSEED={seed}", sys.executable, "-c", PROGRAM]
        said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert said[0].splitlines() == said[1].splitlines()
    assert len(said[0].splitlines()) == len(names()) - 1 - len(HASHED)
