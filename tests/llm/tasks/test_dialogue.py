"""Conversations: a calculator as a tool, Python as another one, and replies that are none."""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Any

import pytest

from shoal.llm.tasks.dialogue import MAX_REPLY, DialogueError, answer_of, converse, is_dialogue, reply_to
from shoal.llm.tasks.python_tool import PythonTool
from shoal.llm.tasks.task import Dialogue, Message, Prompt, Reply, Task
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATORS: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


def calculate(text: str) -> int:
    """The value of an expression of +, - and * on integers; ValueError for anything else."""
    match ast.parse(text, mode="eval").body if isinstance(text, str) else text:
        case ast.Constant(value=int(value)):
            return value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](calculate_node(left), calculate_node(right))
        case _:
            raise ValueError(text)


def calculate_node(node: ast.expr) -> int:
    return calculate(ast.unparse(node))


class Calculator:
    """Products that are too large to do in the head; `calc: 12 * 34` asks the calculator."""

    name = "calculator"
    max_turns = 3

    def prompt(self, index: int) -> Prompt:
        factors = (123 + index, 457)
        return Prompt(index, (Message("user", f"{factors[0]} * {factors[1]}?"),), str(factors[0] * factors[1]))

    def reply(self, prompt: Prompt, turns: tuple[Message, ...]) -> Reply:
        asked = turns[-1].content
        if not asked.startswith("calc:"):
            return Reply(Message("tool", ""), done=True)
        try:
            return Reply(Message("tool", str(calculate(asked.removeprefix("calc:").strip()))))
        except (SyntaxError, ValueError):
            return Reply(Message("tool", "error"))

    def score(self, prompt: Prompt, answer: str) -> float:
        return float(answer.strip() == prompt.truth)


def uses_the_tool(prompt: Prompt, turns: tuple[Message, ...]) -> str:
    if turns:
        return turns[-1].content
    return f"calc: {prompt.question[0].content.rstrip('?')}"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_tool_is_asked_and_its_answer_given() -> None:
    task = Calculator()
    assert isinstance(task, Task)
    assert isinstance(task, Dialogue)
    assert is_dialogue(task)
    prompt = task.prompt(2)
    turns = converse(task, prompt, uses_the_tool)
    assert [(turn.role, turn.content) for turn in turns] == [
        ("assistant", "calc: 125 * 457"),
        ("tool", "57125"),
        ("assistant", "57125"),
    ]
    assert task.score(prompt, answer_of(task, prompt, turns)) == 1.0
    assert turns == converse(task, prompt, uses_the_tool)


def test_turns_are_bounded() -> None:
    task = Calculator()
    turns = converse(task, task.prompt(0), lambda *_: "calc: 1 +")
    assert [turn.content for turn in turns] == ["calc: 1 +", "error", "calc: 1 +", "error", "calc: 1 +"]
    assert task.score(task.prompt(0), answer_of(task, task.prompt(0), turns)) == 0.0


def test_what_is_scored_may_be_the_tasks_choice() -> None:
    class First(Calculator):
        def answer_of(self, prompt: Prompt, turns: tuple[Message, ...]) -> str:
            return turns[0].content

    turns = converse(First(), First().prompt(0), uses_the_tool)
    assert answer_of(First(), First().prompt(0), turns) == "calc: 123 * 457"
    assert answer_of(Calculator(), First().prompt(0), ()) == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("text", "calculator: the reply to turn 0 of prompt 0 is a str; return a Reply"),
        (Reply(Message("assistant", "4")), "has the role 'assistant'; what the world says is user or tool"),
        (Reply(Message("tool", "x" * (MAX_REPLY + 1))), "has 100,001 characters, at most 100,000 are read"),
        (Reply(Message("tool", None)), "holds no Message of text"),  # pyright: ignore[reportArgumentType]
        (Reply(Message("user", "2\ud800")), "holds no Message of text"),
        (Reply("4"), "holds no Message of text, but '4'"),  # pyright: ignore[reportArgumentType]
        (OverflowError("too much"), "failed: OverflowError: too much"),
    ],
)
def test_wrong_replies(given: Any, message: str) -> None:
    class Wrong(Calculator):
        def reply(self, prompt: Prompt, turns: tuple[Message, ...]) -> Reply:
            if isinstance(given, Exception):
                raise given
            return given

    with pytest.raises(DialogueError, match=message):
        reply_to(Wrong(), Wrong().prompt(0), (Message("assistant", "calc: 1"),))


def test_what_is_no_dialogue() -> None:
    class Plain:
        name = "plain"

        def prompt(self, index: int) -> Prompt:
            return Prompt(index, "2 + 2 =", "4")

        def score(self, prompt: Prompt, answer: str) -> float:
            return float(answer == prompt.truth)

    assert not is_dialogue(Plain())
    for name, value in (("max_turns", 0), ("max_turns", True), ("max_turns", None)):
        wrong: Any = type("Wrong", (Calculator,), {name: value})()
        with pytest.raises(ConfigError, match=r"has reply\(prompt, turns\) and max_turns"):
            is_dialogue(wrong)
    half: Any = type("Half", (Plain,), {"max_turns": 3})()
    with pytest.raises(ConfigError, match="it has no reply, and max_turns=3"):
        is_dialogue(half)


class Sums:
    name = "sums"
    threshold = 0.9

    def prompt(self, index: int) -> Prompt:
        return Prompt(index, "2 ** 70?", str(2**70))

    def score(self, prompt: Prompt, answer: str) -> float:
        return float(answer == prompt.truth)


def test_python_as_a_tool() -> None:
    task = PythonTool(Sums(), max_turns=2, unconfined=not confined())
    assert task.name == "sums+python"
    assert task.threshold == 0.9
    prompt = task.prompt(5)
    assert prompt.index == 5
    assert [message.role for message in prompt.question] == ["system", "user"]  # pyright: ignore[reportAttributeAccessIssue]

    def speak(_: Prompt, turns: tuple[Message, ...]) -> str:
        return turns[-1].content.strip() if turns else "I compute it.\n```python\nprint(2 ** 70)\n```"

    turns = converse(task, prompt, speak)
    assert [turn.role for turn in turns] == ["assistant", "tool", "assistant"]
    assert task.score(prompt, answer_of(task, prompt, turns)) == 1.0
    replies = {
        "```python\nx = 1": "[it printed nothing]",
        "```python\n1 / 0\n```": "[it ended with status 1]",
    }
    for said, shown in replies.items():
        assert task.reply(prompt, (Message("assistant", said),)).message.content.endswith(shown)
        assert task.score(prompt, said) == 0.0
    with pytest.raises(ConfigError, match="max_turns must be at least 1"):
        PythonTool(Sums(), max_turns=0)


def confined() -> bool:
    from tests.llm.tasks.test_sandbox import CONFINED

    return CONFINED


def test_python_beside_a_message_of_the_system() -> None:
    class Told(Sums):
        def prompt(self, index: int) -> Prompt:
            return Prompt(index, (Message("system", "Be short."), Message("user", "2 ** 70?")))

    task = PythonTool(Told(), unconfined=not confined(), instruction="Use Python.")
    assert task.prompt(0).question == (Message("system", "Use Python.\nBe short."), Message("user", "2 ** 70?"))
