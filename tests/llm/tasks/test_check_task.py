"""`check_task` finds what a task does wrong."""

from __future__ import annotations

import itertools
import random
import re
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from shoal.llm.tasks.check_task import check_task
from shoal.llm.tasks.reasoning import ReasoningTask
from shoal.llm.tasks.task import Message, Prompt, Reply
from shoal.types import ConfigError

pytestmark = pytest.mark.usefixtures("warm_workers")


class Sum:
    """A task that is right; tests break it."""

    name = "sum"

    def prompt(self, index: int) -> Prompt:
        return Prompt(index, f"{index} + 1 =", str(index + 1))

    def score(self, prompt: Prompt, answer: str) -> float:
        return float(answer == prompt.truth)

    def solution(self, prompt: Prompt) -> str:
        return prompt.truth


def broken(**methods: Any) -> Any:
    return type("Broken", (Sum,), methods)


def test_a_right_task() -> None:
    report = check_task(Sum)
    assert report.ok
    assert not report.warnings
    assert {finding.name for finding in report.findings} == {
        "make", "truth", "prompt", "variety", "determinism", "solution", "contains", "score", "workers",
    }  # fmt: skip
    assert report.skipped == ()
    assert "sum: no errors, no warnings" in str(report)


def test_a_task_itself_and_reasoning_gym() -> None:
    assert check_task(Sum()).ok
    report = check_task(ReasoningTask("chain_sum", seed=1))
    assert report.ok
    assert not report.warnings


def test_a_task_without_solutions() -> None:
    report = check_task(broken(solution=property(lambda _: getattr(Sum, "nothing"))))  # noqa: B009
    assert report.ok
    assert report.skipped == ("solution",)


counter = itertools.count()


def at_random(_: Any, index: int) -> Prompt:
    return Prompt(index, f"{random.random()}")


def at_ends(_: Any, index: int) -> Prompt:
    if index > 5:
        raise IndexError("no more")
    return Prompt(index, f"{index}")


WRONG: list[tuple[str, str, dict[str, Any], str]] = [
    ("prompt", "error", {"prompt": at_ends}, r"prompt\(6\) raised IndexError: no more"),
    ("prompt", "error", {"prompt": lambda *_: "text"}, r"prompt\(0\) gave str"),
    ("prompt", "error", {"prompt": lambda *_: Prompt(0, "x")}, r"prompt\(1\) has the index 0"),
    ("prompt", "error", {"prompt": lambda _, i: Prompt(i, "")}, "the question is empty"),
    ("prompt", "error", {"prompt": lambda _, i: Prompt(i, ())}, r"the question is \(\)"),
    ("prompt", "error", {"prompt": lambda _, i: Prompt(i, cast("Any", ("x",)))}, "a message is 'x'"),
    ("prompt", "error", {"prompt": lambda _, i: Prompt(i, (Message("me", "x"),))}, "role is 'me', none of system"),
    ("truth", "error", {"prompt": lambda _, i: Prompt(i, f"{i}", {1})}, "not JSON serializable"),
    ("truth", "error", {"prompt": lambda _, i: Prompt(i, f"{i}", (1, 2))}, "comes back from JSON as something else"),
    ("truth", "error", {"prompt": lambda _, i: Prompt(i, f"{i}", {i} if i > 3 else i)}, r"prompt\(4\)\.truth"),
    ("determinism", "error", {"prompt": at_random}, "is another one when asked again"),
    ("determinism", "error", {"prompt": lambda s, i: Prompt(i, f"{i}", str(id(s)))}, "of a task made again"),
    ("variety", "warning", {"prompt": lambda _, i: Prompt(i, "x", "x")}, "32 prompts are one and the same"),
    ("score", "error", {"score": lambda *_: float("nan")}, "is nan"),
    ("score", "error", {"score": lambda *_: None}, "is None"),
    ("score", "error", {"score": lambda *_: True}, "is True"),
    ("score", "error", {"score": lambda *_: 1 / 0}, "raised ZeroDivisionError"),
    ("score", "warning", {"score": lambda *_: float(next(counter))}, "then"),
    ("score", "warning", {"score": lambda s, p, a: 0.5 if not a else Sum.score(s, p, a)}, "empty answer .* earns 0.5"),
    ("solution", "error", {"solution": lambda *_: "x"}, "earns 0, and another answer 0"),
    ("solution", "error", {"solution": lambda *_: 3}, "it is 3"),
    ("solution", "error", {"solution": lambda *_: 1 / 0}, "raised ZeroDivisionError"),
    ("contains", "warning", {"score": lambda _, p, a: float(p.truth in a)}, "'not 1' earns 1 where '1' is right"),
]


@pytest.mark.parametrize(("name", "verdict", "methods", "says"), WRONG)
def test_what_is_wrong_is_found(name: str, verdict: str, methods: dict[str, Any], says: str) -> None:
    report = check_task(broken(**methods))
    found = {finding.name: finding for finding in report.findings}
    assert found[name].verdict == verdict, report
    assert found[name].advice
    assert re.search(says, found[name].says), found[name].says


def test_what_is_no_task() -> None:
    assert "raised ZeroDivisionError" in str(check_task(lambda: 1 / 0))  # pyright: ignore[reportArgumentType]
    made: Callable[[], Any] = lambda: 3  # noqa: E731
    report = check_task(made)
    assert "int has no name and no prompt and no score" in str(report)
    with pytest.raises(ConfigError, match="at least 3"):
        check_task(Sum, prompts=2)


def test_a_task_that_cannot_go_to_processes() -> None:
    task = Sum()
    task.lock = threading.Lock()  # pyright: ignore[reportAttributeAccessIssue]
    [warning] = check_task(task).warnings
    assert warning.name == "workers"


def test_a_task_of_several_turns() -> None:
    """Its replies are tried out: there, of the right kind, and always the same."""

    def reply(_: Any, prompt: Prompt, turns: tuple[Message, ...]) -> Reply:
        return Reply(Message("user", f"{turns[-1].content}?"))

    assert check_task(broken(max_turns=2, reply=reply)).ok
    for wrong, says in (
        ({"reply": reply}, r"no reply|has a reply, and max_turns=None"),
        ({"max_turns": 2, "reply": lambda *_: "text"}, "is a str; return a Reply"),
        ({"max_turns": 2, "reply": lambda *_: Reply(Message("user", f"{next(counter)}"))}, "has two replies to ''"),
        ({"max_turns": 2, "reply": reply, "answer_of": lambda *_: 1 / 0}, "answer_of for prompt 0 failed"),
    ):
        report = check_task(broken(**wrong))
        (found,) = [one for one in report.findings if one.name == "replies"]
        assert found.verdict == "error"
        assert re.search(says, found.says), found.says
