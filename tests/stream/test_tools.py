"""Conversations with tools in processes: Python in its sandbox, and one that hangs."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shoal.llm.sampler.protocol import Drawn
from shoal.llm.tasks.python_tool import PythonTool
from shoal.llm.tasks.replies import ReplyPool
from shoal.llm.tasks.task import Prompt
from shoal.stream.groups.conversations import Conversations
from shoal.stream.groups.flight import Group
from tests.llm.models import make_model
from tests.llm.tasks.test_sandbox import CONFINED
from tests.llm.tasks.told_tasks import Echo
from tests.stream.test_conversations import Script

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.llm.tasks.task import Dialogue

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's"),
]


class Powers:
    """Powers of two, which few know by heart."""

    name = "powers"

    def prompt(self, index: int) -> Prompt:
        """One of them."""
        return Prompt(index, f"2 ** {70 + index}?", str(2 ** (70 + index)))

    def score(self, prompt: Prompt, answer: str) -> float:
        """1 for the number."""
        return float(answer == prompt.truth)


class Talk:
    """A conversation with a model that says what it is told."""

    def __init__(self, make: Callable[[], Dialogue], **settings: Any) -> None:
        task, self.script, made = make(), Script(), make_model(max_length=512)
        sampler: Any = self.script
        self.encode = made.tokenizer.encode
        self.decode = made.tokenizer.decode
        replies = ReplyPool(make, name=task.name, **settings)
        self.talks = Conversations(task, made, sampler, replies, max_tokens=400)
        prompt = task.prompt(0)
        self.group = Group(0, prompt, tuple(made.tokenizer.encode_prompt(prompt)), 0, 1)

    def say(self, text: str) -> None:
        """A turn of the model, and the task's reply to it."""
        token = np.array([*self.encode(text), 0])
        n = len(token)
        drawn = Drawn(0, 0, token, np.zeros(n, np.float32), np.zeros(n, np.int64), truncated=False)
        assert not self.talks.take(self.group, drawn)
        while self.talks.pending:
            self.talks.poll({0: self.group}, 1.0)


def test_a_program_is_run_and_what_it_prints_is_read() -> None:
    """In the sandbox, in a process of its own; the model's own tokens stay as they were."""
    said = "```python\nprint(2 ** 70)\n```"
    talk = Talk(partial(PythonTool, Powers(), unconfined=not CONFINED), workers=1, timeout_s=60)
    try:
        talk.say(said)
        (asked,) = talk.script.asked
        (begun,) = asked.begun
        own = talk.encode(said)
        assert begun[: len(own) + 1] == (*own, 0)
        assert str(2**70) in talk.decode(list(begun[len(own) :]))
        talk.say(str(2**70))
        assert talk.group.text[0] == str(2**70)
        answer = talk.group.drawn[0]
        assert answer.chosen.sum() == len(own) + len(talk.encode(str(2**70))) + 2
        assert talk.talks.failed == 0
    finally:
        talk.talks.close()


def test_a_tool_that_hangs_ends_its_conversation() -> None:
    """It is ended after its time, and counted; what was said before is scored."""
    told: list[str] = []
    talk = Talk(Echo, workers=1, timeout_s=0.5, retries=0, tell=told.append)
    try:
        talk.say("hang")
        assert talk.talks.failed == 1
        assert talk.group.text[0] == "hang"
        assert not talk.group.drawn[0].truncated
        assert "0.5 s" in told[0]
    finally:
        talk.talks.close()
