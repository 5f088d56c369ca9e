"""Evaluation of a language model: its most probable answers to a task's prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Drawing, Request
from shoal.stream.groups.conversations import Conversations
from shoal.stream.groups.flight import Group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoal.llm.model import LanguageModel
    from shoal.llm.tasks.source import TaskSource
    from shoal.llm.tasks.task import Dialogue
    from shoal.types import Floats

STEPS = 16
"""Tokens of each answer that are drawn at a time."""
BLOCK_S = 0.1
"""Seconds that it waits for replies at a time."""


def answered(
    model: LanguageModel,
    source: TaskSource,
    *,
    episodes: int,
    seed: int,
    between: Callable[[], None],
    temperature: float = 0.0,
) -> tuple[Floats, Floats]:
    """Rewards and numbers of tokens [episodes] of one answer to each of the task's first prompts.

    In a task of several turns an answer is a whole conversation, replies included. `between` is called again and again
    between tokens.
    """
    task, tokenizer = source.task, model.tokenizer
    drawing = Drawing(max_tokens=source.max_tokens, temperature=temperature)
    slots = min(source.language.slots, episodes)
    sampler = LocalSampler(model, drawing, slots=slots, seed=seed)
    groups: dict[int, Group] = {}
    for number in range(episodes):
        prompt = task.prompt(number)
        token = tuple(tokenizer.encode_prompt(prompt))
        groups[number] = Group(number, prompt, token, since=0, wanted=1)
    sampler.submit([Request(one.key, one.token, (0,)) for one in groups.values()])
    replies, conversations = source.reply_pool(), None
    if replies is not None:
        conversations = Conversations(
            cast("Dialogue", task),
            model,
            sampler,
            replies,
            max_tokens=source.max_tokens,
        )
    rewards, lengths = np.zeros(episodes), np.zeros(episodes)
    try:
        for group in _finished(sampler, conversations, groups, between):
            token = group.drawn[0].token
            text = group.text.get(0)
            if text is None:
                text = tokenizer.decode(token.tolist())
            rewards[group.key] = task.score(group.prompt, text)
            lengths[group.key] = len(token)
    finally:
        if conversations is not None:
            conversations.close()
    return rewards, lengths


def _finished(
    sampler: LocalSampler,
    conversations: Conversations | None,
    groups: dict[int, Group],
    between: Callable[[], None],
) -> Iterator[Group]:
    """Each group when its answer is finished."""
    while sampler.pending or (conversations is not None and conversations.pending):
        between()
        for drawn in sampler.poll(STEPS):
            group = groups[drawn.key]
            if conversations is None:
                group.drawn[drawn.number] = drawn
                yield group
            elif conversations.take(group, drawn):
                yield group
        if conversations is not None and conversations.pending:
            block_s = 0.0 if sampler.pending else BLOCK_S
            for group, _ in conversations.poll(groups, block_s):
                yield group
