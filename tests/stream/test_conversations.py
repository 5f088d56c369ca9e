"""Answers of several turns: their tokens and masks, what the learner makes of them, and that none is lost."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim import SGD

from shoal.learn.learner import Learner
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Drawn, Sampling
from shoal.llm.scorers.pool import ScorerPool
from shoal.llm.tasks.dialogue import DialogueError
from shoal.llm.tasks.replies import ReplyPool
from shoal.llm.tasks.task import Message, Prompt, Reply
from shoal.stream.groups.conversations import Conversations
from shoal.stream.groups.flight import Group
from shoal.stream.groups.groups import Groups
from shoal.stream.groups.process import ProcessSampler
from shoal.stream.groups.turns import turns_of
from tests.llm.guessing import Guessing
from tests.llm.toy import toy_model
from tests.stream.test_groups import Drawn as Config
from tests.stream.test_groups import taken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.llm.sampler.protocol import Request
    from shoal.types import Answers

pytestmark = pytest.mark.usefixtures("warm_workers")


class Script:
    """A sampler that says what it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def submit(self, requests: Sequence[Request]) -> None:
        self.asked += requests


def drawn(token: list[int], version: int, *, truncated: bool = False) -> Drawn:
    """A turn of answer 1 to prompt 0; its log-probabilities count up."""
    n = len(token)
    kept = np.full((n, 2), 7, np.uint8)
    return Drawn(0, 1, np.array(token), -np.arange(1.0, n + 1, dtype=np.float32), np.full(n, version), truncated, kept)


def conversations(max_tokens: int, **settings: Any) -> tuple[Conversations, Script, Group]:
    """Conversations of the guessing task with a scripted model, and the group of prompt 0, whose letter is a."""
    task, model, script = Guessing(), toy_model(), Script()
    replies = ReplyPool(lambda: task, name=task.name, **settings)
    made: Any = script
    talks = Conversations(task, model, made, replies, max_tokens=max_tokens)
    prompt = task.prompt(0)
    return talks, script, Group(0, prompt, tuple(model.tokenizer.encode_prompt(prompt)), 0, 2)


def test_turns_and_replies_become_one_answer() -> None:
    """Worked by hand: "c.", the hint a (token 2) between line ends, which are ? (1) here, and "a." of newer weights."""
    talks, script, group = conversations(9)
    assert not talks.take(group, drawn([4, 0], version=3))
    assert talks.poll({0: group}) == []
    (asked,) = script.asked
    assert (asked.key, asked.numbers, asked.prompt) == (0, (1,), (1,))
    assert asked.begun == ((4, 0, 1, 2, 1),)
    assert not talks.take(group, drawn([2, 0], version=5))
    assert talks.pending == 1
    assert talks.poll({0: group}) == [(group, 1)]
    answer = group.drawn[1]
    assert answer.token.tolist() == [4, 0, 1, 2, 1, 2, 0]
    assert answer.chosen.tolist() == [True, True, False, False, False, True, True]
    assert answer.logprob.tolist() == [-1, -2, 0, 0, 0, -1, -2]
    assert answer.version.tolist() == [3, 3, 0, 0, 0, 5, 5]
    assert answer.kept is not None
    assert answer.kept[:, 0].tolist() == [7, 7, 0, 0, 0, 7, 7]
    assert not answer.truncated
    assert group.text[1] == "a"


def test_a_conversation_without_room_is_cut() -> None:
    """Two tokens and a reply of three leave room for one more among six, and none among five: it is not read then."""
    talks, script, group = conversations(6)
    talks.take(group, drawn([4, 0], version=0))
    assert talks.poll({0: group}) == []
    assert len(script.asked) == 1
    talks, script, group = conversations(5)
    talks.take(group, drawn([4, 0], version=0))
    assert talks.poll({0: group}) == [(group, 1)]
    assert not script.asked
    assert group.drawn[1].truncated
    assert group.drawn[1].token.tolist() == [4, 0]
    assert group.text[1] == "c"


def test_a_turn_that_was_cut_ends_the_conversation() -> None:
    """No reply is asked for; what was said is scored."""
    talks, _, group = conversations(2)
    assert talks.take(group, drawn([2, 2], version=0, truncated=True))
    assert talks.pending == 0
    assert group.text[1] == "a a"


class Hostile(Guessing):
    """Its tool fails at some prompts."""

    def reply(self, prompt: Prompt, turns: tuple[Message, ...]) -> Reply:
        """Raises, or floods."""
        if prompt.index % 4 == 1:
            raise OSError("the tool is gone")
        if prompt.index % 4 == 2:
            return Reply(Message("tool", "a" * 200_000))
        return super().reply(prompt, turns)


def stream(
    *,
    task: Any = None,
    replies: ReplyPool | None = None,
    max_staleness: int = 0,
    apart: bool = False,
    sampling: Sampling | None = None,
) -> Groups:
    """Groups of the toy conversation."""
    task, model = task or Guessing(), toy_model()
    cfg = Config(max_completion_length=20, sampling=sampling or Sampling(temperature=0.7))
    model.temperature = cfg.sampling.temperature
    drawing = cfg.sampling.drawing(cfg.max_completion_length)
    kind = ProcessSampler if apart else LocalSampler
    sampler = kind(model, drawing, slots=4, seed=1)
    scorers = ScorerPool(lambda: task.score, workers=0)
    learner = Learner(model, SGD, lr=0.0)
    turns = turns_of(task, model, sampler, cfg, pool=replies)
    return Groups(task, sampler, scorers, learner, cfg, turns=turns, max_staleness=max_staleness)


def close(batches: list[Answers], others: list[Answers]) -> None:
    """Checks that batches have equal tokens, and log-probabilities that are equal up to rounding."""
    for a, b in zip(batches, others, strict=True):
        assert torch.equal(a.token, b.token)
        assert torch.equal(a.mask, b.mask)
        assert torch.equal(a.version, b.version)
        assert torch.equal(a.reward, b.reward)
        torch.testing.assert_close(a.logprob, b.logprob, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def batches() -> list[Answers]:
    """Of a stream that is not disturbed."""
    return taken(stream(), 5)


def test_the_learner_sees_what_the_sampler_drew(batches: list[Answers]) -> None:
    """Log-probabilities over turns are the model's, hints between them are no part of the loss."""
    model = toy_model()
    model.temperature = 0.7
    turns = torch.cat([batch.turns for batch in batches])
    assert {2, 3} <= set(turns.tolist())
    for batch in batches:
        with torch.no_grad():
            logprob = model(batch).logprob
        torch.testing.assert_close(logprob[batch.mask], batch.logprob[batch.mask], rtol=0, atol=1e-5)
        assert (batch.logprob[~batch.mask] == 0).all()


def test_kept_sets_of_all_turns_arrive() -> None:
    """With top-k the log-probabilities of every turn are those within its sets."""
    (batch,) = taken(stream(sampling=Sampling(top_k=4)), 1)
    assert (batch.turns > 1).any()
    with torch.no_grad():
        logprob = toy_model()(batch).logprob
    torch.testing.assert_close(logprob[batch.mask], batch.logprob[batch.mask], rtol=0, atol=1e-5)


def test_a_sampler_apart_draws_the_same(batches: list[Answers]) -> None:
    """Without staleness; also where it is killed in mid-conversation."""
    apart = stream(apart=True)
    try:
        sampler: Any = apart.gathering.sampler
        found = taken(apart, 2)
        sampler.load(apart.version, apart.model)
        apart.gathering.admit(apart._batches)
        talks: Any = apart.gathering.turns
        while not talks._open:
            apart.gathering.advance()
        os.kill(sampler.pid, signal.SIGKILL)
        found += taken(apart, 3)
    finally:
        apart.close()
    close(found, batches)


@pytest.mark.parametrize("where", ["reply", "turn"])
def test_a_restored_stream_goes_on_in_mid_conversation(batches: list[Answers], where: str) -> None:
    """A reply that was awaited is asked for again, a turn goes on at its token."""
    first = stream()
    found = taken(first, 2)
    gathering = first.gathering
    gathering.sampler.load(first.version, first.model)
    gathering.admit(first._batches)
    talks: Any = gathering.turns
    while not any(one.awaited == (where == "reply") for one in talks._open.values()):
        if where == "reply":
            gathering.take_drawn(1)
        else:
            gathering.advance()
    if where == "turn":
        gathering.take_drawn(1)
    saved = first.state()
    again = stream()
    again._learner.version = first.version
    again.restore(saved)
    resumed: Any = again.gathering.turns
    assert resumed._open.keys() == talks._open.keys()
    close(found + taken(again, 3), batches)


def test_conversations_are_no_staler_than_allowed() -> None:
    """Every token of every turn, in batches of two versions and more."""
    later = taken(stream(max_staleness=2), 6)
    late = [number - int(batch.version[batch.mask].min()) for number, batch in enumerate(later)]
    assert max(late) <= 2
    mixed = [
        row
        for batch in later
        for row, mask in zip(batch.version, batch.mask, strict=True)
        if row[mask].unique().numel() > 1
    ]
    assert mixed


def test_a_tool_that_fails_ends_its_conversations_and_is_counted() -> None:
    """It is said once; with another policy it ends the run."""
    told: list[str] = []
    task = Hostile()
    replies = ReplyPool(lambda: task, name=task.name, retries=0, tell=told.append)
    noisy = stream(task=task, replies=replies)
    (batch,) = taken(noisy, 1)
    assert (batch.turns[batch.prompt_of == 1] == 1).all()
    taken(noisy, 1)
    assert noisy.gathering.turns.failed >= 4  # pyright: ignore[reportOptionalMemberAccess]
    (said,) = told
    assert "replying to prompt 1 failed" in said
    assert "the tool is gone" in said
    strict = ReplyPool(lambda: task, name=task.name, retries=0, on_failure="raise")
    with pytest.raises(DialogueError, match="prompt 1 failed"):
        taken(stream(task=task, replies=strict), 1)
