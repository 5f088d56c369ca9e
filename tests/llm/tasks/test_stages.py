"""Prompts that are made ahead, and replies beside the sampler."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from shoal.envs.workers.pipe import pack, unpack
from shoal.llm.tasks.ahead import PromptsAhead
from shoal.llm.tasks.check_task import check_task
from shoal.llm.tasks.dialogue import DialogueError
from shoal.llm.tasks.replies import Replied, ReplyPool
from shoal.llm.tasks.task import Message, Prompt, Task
from shoal.types import ConfigError
from tests.llm.tasks.told_tasks import Echo, Slow

pytestmark = pytest.mark.usefixtures("warm_workers")

PROMPT = Prompt(4, "Say something.")


def said(*contents: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if i % 2 == 0 else "tool", content) for i, content in enumerate(contents))


def test_prompts_are_made_ahead() -> None:
    with PromptsAhead(partial(Slow, 0.02), workers=1, ahead=3) as task:
        assert isinstance(task, Task)
        assert (task.name, task.threshold) == ("slow", 0.5)
        assert task.prompt(100) == Slow().prompt(100)
        assert isinstance(unpack(pack(task)), Slow)  # in another process it is the task alone
        time.sleep(0.5)
        assert task.ready(101)
        assert not task.ready(150)
        began = time.monotonic()
        assert [task.prompt(index).index for index in (101, 102, 100)] == [101, 102, 100]
        assert time.monotonic() - began < 0.06
        assert task.score(task.prompt(100), "100") == 1.0
        for index in range(200, 240):  # what is far away is forgotten
            task.prompt(index)
        assert len(task._there) < 20
        with pytest.raises(RuntimeError, match="slow: making prompt 5 failed: LookupError: no five"):
            task.prompt(5)
        with pytest.raises(RuntimeError, match=r"making prompt 7 failed: generator 0 .* was killed by SIGKILL"):
            task.prompt(7)
        assert task.prompt(6).index == 6
        with pytest.raises(ValueError, match="counted from 0"):
            task.prompt(-1)
        with pytest.raises(AttributeError):
            task.solution  # noqa: B018
        with pytest.raises(ConfigError, match="workers and ahead must be at least 1"):
            PromptsAhead(Slow, workers=0)


@pytest.mark.slow
def test_reasoning_gym_ahead_asks_the_same() -> None:
    from shoal.llm.tasks.registry import make_task

    make = partial(make_task, "reasoning-gym:countdown", seed=5)
    with PromptsAhead(make, workers=2, ahead=8) as task:
        ahead = [task.prompt(index) for index in range(12)]
    plain = make()
    assert ahead == [plain.prompt(index) for index in range(12)]
    with PromptsAhead(make, workers=1, ahead=4) as task:
        assert check_task(task, prompts=4).errors == ()


@pytest.mark.parametrize("workers", [0, 1])
def test_replies(workers: int) -> None:
    with ReplyPool(Echo, name="echo", workers=workers, retries=1) as pool:
        for key, turns in enumerate((said("a"), said("done"), said("a", "a", "b", "b", "c"), said("raise"))):
            pool.submit(key, PROMPT, turns)
        assert pool.pending == 4
        found: dict[int, Replied] = {}
        while pool.pending:
            found |= {replied.key: replied for replied in pool.poll(5.0)}
    assert [found[key].message for key in range(4)] == [Message("tool", "a"), None, None, None]
    text = (
        "echo: replying to prompt 4 failed, 2 times: DialogueError: echo: the reply to turn 0 of prompt 4 failed: "
        "OverflowError: too loud"
    )
    assert [found[key].failure for key in range(4)] == [None, None, None, text]
    assert pool.num_failures == 1


def test_replies_that_fail_are_raised() -> None:
    with ReplyPool(Echo, name="echo", on_failure="raise", retries=0) as pool:
        pool.submit(0, PROMPT, said("raise"))
        pool.submit(1, PROMPT, said("a"))
        assert [replied.key for replied in pool.poll()] == [1]
        with pytest.raises(DialogueError, match="too loud"):
            pool.poll()
        assert (pool.poll(), pool.pending) == ([], 0)
    wrong: Any = "ignore"
    with pytest.raises(ConfigError, match="on_failure is one of raise, end, got 'ignore'"):
        ReplyPool(Echo, name="echo", on_failure=wrong)


@pytest.mark.slow
def test_a_tool_that_hangs_ends_its_conversation_only() -> None:
    with ReplyPool(Echo, name="echo", workers=1, timeout_s=0.5, retries=0) as pool:
        pool.submit(0, PROMPT, said("hang"))
        pool.submit(1, PROMPT, said("a"))
        found: dict[int, Replied] = {}
        while pool.pending:
            found |= {replied.key: replied for replied in pool.poll(5.0)}
    assert found[1].message == Message("tool", "a")
    assert "echo: replying to prompt 4 failed: tool 0 (pid " in str(found[0].failure)
    assert "said nothing for 0.5 s; its stack:" in str(found[0].failure)
