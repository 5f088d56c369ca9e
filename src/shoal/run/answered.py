"""Evaluation of a language model: its most probable answers to a task's prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Drawing, Request

if TYPE_CHECKING:
    from shoal.llm.model import LanguageModel
    from shoal.llm.tasks.source import TaskSource
    from shoal.types import Floats


def answered(
    model: LanguageModel,
    source: TaskSource,
    *,
    episodes: int,
    seed: int,
    temperature: float = 0.0,
) -> tuple[Floats, Floats]:
    """Rewards and numbers of tokens [episodes] of one answer to each of the task's first prompts."""
    task, tokenizer = source.task, model.tokenizer
    drawing = Drawing(max_tokens=source.max_tokens, temperature=temperature)
    slots = min(source.slots, episodes)
    sampler = LocalSampler(model, drawing, slots=slots, seed=seed)
    prompts = [task.prompt(number) for number in range(episodes)]
    sampler.submit(
        [
            Request(number, tuple(tokenizer.encode_prompt(prompt)), (0,))
            for number, prompt in enumerate(prompts)
        ]
    )
    rewards, lengths = np.zeros(episodes), np.zeros(episodes)
    while sampler.pending:
        for drawn in sampler.poll():
            text = tokenizer.decode(drawn.token.tolist())
            rewards[drawn.key] = task.score(prompts[drawn.key], text)
            lengths[drawn.key] = len(drawn.token)
    return rewards, lengths
