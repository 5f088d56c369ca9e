"""Names of tasks, and tasks whose prompts are held out."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from shoal.llm.tasks.registry import HELD_OUT, is_task_name, make_task
from shoal.llm.tasks.task import Prompt, Task
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Echo:
    """Pays for repeating the number."""

    def __init__(self, name: str, seed: int, length: int = 1) -> None:
        self.name, self.seed, self.length = name, seed, length

    def prompt(self, index: int) -> Prompt:
        return Prompt(index, f"{self.seed + index}", str(self.seed + index))

    def score(self, prompt: Prompt, answer: str) -> float:
        return float(answer == prompt.truth)


def seeded(*, seed: int, length: int = 1) -> Echo:
    return Echo("seeded", seed, length)


def splits(*, held_out: bool, seed: int = 0) -> Echo:
    return Echo("held out" if held_out else "training", seed)


def fixed() -> Echo:
    return Echo("fixed", 0)


def wrong() -> Any:
    return {"name": "no task"}


NO_FUNCTION = 3


def prompts_file(path: Path, answer: str = "4") -> str:
    path.write_text(json.dumps({"prompt": "2 + 2?", "answer": answer}) + "\n", encoding="utf-8")
    return f"jsonl:{path}"


def test_names_need_no_imports() -> None:
    assert is_task_name("reasoning-gym:chain_sum")
    assert is_task_name("jsonl:/there/is/none")
    for other in ("CartPole-v1", "grpc://127.0.0.1:1", "package.module:function", seeded, None):
        assert not is_task_name(other)
    program = (
        "import sys; from shoal.llm.tasks.names import is_task_name; is_task_name('reasoning-gym:gcd'); "
        "sys.exit(bool({'torch', 'gymnasium', 'reasoning_gym', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_reasoning_gym() -> None:
    kwargs = {"max_terms": 2, "extract": "last_number"}
    task = make_task("reasoning-gym:chain_sum", seed=3, kwargs=kwargs)
    held_out = make_task("reasoning-gym:chain_sum", seed=3, kwargs=kwargs, held_out=True)
    assert task.score(task.prompt(0), f"it is {task.prompt(0).truth}") == 1
    moved = make_task("reasoning-gym:chain_sum", seed=3 + HELD_OUT, kwargs=kwargs)
    assert held_out.prompt(5) == moved.prompt(5) != task.prompt(5)
    last = make_task("reasoning-gym:chain_sum", seed=2**31 - 1, kwargs=kwargs, held_out=True)
    assert last.prompt(0).index == 0
    assert kwargs == {"max_terms": 2, "extract": "last_number"}


def test_files(tmp_path: Path) -> None:
    source = prompts_file(tmp_path / "train.jsonl")
    other = prompts_file(tmp_path / "eval.jsonl", answer="four").removeprefix("jsonl:")
    kwargs = {"eval_file": other, "scoring": "exact"}
    assert make_task(source, kwargs=kwargs).prompt(0).truth == "4"
    assert make_task(source, kwargs=kwargs, held_out=True).prompt(0).truth == "four"
    with pytest.warns(UserWarning, match="evaluation asks what training asks too.*eval_file=PATH"):
        assert make_task(source, held_out=True).prompt(0).truth == "4"
    same = {"eval_file": f"{tmp_path}/./train.jsonl"}
    with pytest.raises(ConfigError, match="eval_file is the file of training"):
        make_task(source, kwargs=same, held_out=True)
    for held_out in (False, True):  # not only when everything is trained
        with pytest.raises(ConfigError, match=r"nowhere\.jsonl cannot be read"):
            make_task(source, kwargs={"eval_file": f"{tmp_path}/nowhere.jsonl"}, held_out=held_out)
    with pytest.raises(ConfigError, match="eval_file is a path, got 3"):
        make_task(source, kwargs={"eval_file": 3})
    with pytest.raises(ConfigError, match="'score'; it takes seed, scoring, extract, tolerance, shuffle, eval_file"):
        make_task(source, kwargs={"score": "exact"})


def test_functions() -> None:
    made: Any = make_task(seeded, seed=5, kwargs={"length": 2})
    assert (made.seed, made.length) == (5, 2)
    held_out: Any = make_task(seeded, seed=5, held_out=True)
    assert held_out.seed == 5 + HELD_OUT
    split: Any = make_task(splits, seed=5, held_out=True)
    assert (split.name, split.seed) == ("held out", 5)
    assert make_task(splits, seed=5).name == "training"
    assert make_task(fixed).name == "fixed"
    with pytest.warns(UserWarning, match="fixed: evaluation asks what training asks too.*`seed` or `held_out`"):
        make_task(fixed, held_out=True)


def test_functions_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_tasks.py").write_text(
        "class Mine:\n    name = 'mine'\n    def prompt(self, index): ...\n    def score(self, prompt, answer): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert make_task("my_tasks:Mine").name == "mine"
    with pytest.raises(ConfigError, match="has no 'Mime'; did you mean my_tasks:Mine"):
        make_task("my_tasks:Mime")


def test_tasks_themselves() -> None:
    task = fixed()
    assert isinstance(task, Task)
    assert make_task(task) is task
    with pytest.warns(UserWarning, match="give a function of a seed"):
        assert make_task(task, held_out=True) is task
    with pytest.raises(ConfigError, match="is made already, and takes no keywords: length"):
        make_task(task, kwargs={"length": 2})


@pytest.mark.parametrize(
    ("source", "given", "message"),
    [
        ("chain_sum", {}, "no task 'chain_sum'; a task is reasoning-gym:NAME, jsonl:PATH, textarena:GAME or package"),
        ("reasoning-gym:", {}, "no task ''"),
        ("jsonl:", {}, "cannot be read"),
        ("no_such_module:f", {}, "no module 'no_such_module'"),
        (NO_FUNCTION, {}, "int is a int; pass a function that returns a Task"),
        (wrong, {}, "wrong gave a dict, which is no task: it has no name and no prompt and no score"),
        (SimpleNamespace(prompt=wrong, score=wrong), {}, "gave a SimpleNamespace, which is no task: it has no name"),
        (seeded, {"kwargs": {"size": 1}}, "seeded is called with size, seed: .*'size'"),
        (seeded, {"seed": -1}, "seed must be between 0"),
    ],
)
def test_wrong_tasks(source: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task(source, **given)
