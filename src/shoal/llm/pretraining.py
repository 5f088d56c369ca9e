"""Supervised training of a model on a task's own solutions, until it is right as often as asked."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from shoal.llm.layout import laid_out
from shoal.types import Answers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from torch import Tensor

    from shoal.llm.model import LanguageModel

WARM_UP = 20
"""Updates until the learning rate is whole."""
NORM = 1.0
"""What the gradient is clipped to."""


@dataclass(frozen=True, slots=True)
class Pretraining:
    """When a model has seen enough, and how it is shown."""

    success: float = 0.3
    """Ends when this share of answers, drawn at temperature 1 to prompts that it did not see, earns what a solution
    does."""
    wrong: float = 0.0
    """The share of examples whose solution is another prompt's: it shows what answers look like, not which is right."""
    examples: int = 8192
    """Prompts that it sees, again and again."""
    batch: int = 64
    """Examples of an update."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    most_updates: int = 2000
    """Ends then in any case."""
    every: int = 25
    """Updates from one measurement to the next."""
    measured: int = 256
    """Prompts of a measurement."""


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and what is to be said to it, in tokens."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def pretrain(
    model: LanguageModel,
    examples: Sequence[Example],
    settings: Pretraining,
    generator: torch.Generator,
    measure: Callable[[int], float],
) -> float:
    """Trains until `measure(updates)` is at least `settings.success`, and returns what it was last.

    Args:
        model: trained in place.
        examples: those with a wrong solution among them.
        settings: see there.
        generator: draws the order of examples.
        measure: called after every `settings.every` updates; the share of right answers.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        betas=(0.9, 0.98),
        fused=True,
    )
    order = _endless(len(examples), settings.batch, generator)
    success = 0.0
    for update in range(1, settings.most_updates + 1):
        rate = settings.learning_rate * min(1.0, update / WARM_UP)
        optimizer.param_groups[0]["lr"] = rate
        output = model(batched([examples[index] for index in next(order)]))
        counted = output.logprob != 0
        loss = -output.logprob.sum() / counted.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), NORM)
        optimizer.step()
        if update % settings.every == 0 or update == settings.most_updates:
            success = measure(update)
            if success >= settings.success:
                break
    return success


def _endless(
    number: int, batch: int, generator: torch.Generator
) -> Iterator[list[int]]:
    """Numbers of examples, `batch` at a time, each once before any comes again."""
    rest: list[int] = []
    while True:
        while len(rest) < batch:
            rest += torch.randperm(number, generator=generator).tolist()
        yield rest[:batch]
        rest = rest[batch:]


def batched(examples: Sequence[Example]) -> Answers:
    """Examples as answers, one to each prompt, with what only a sampler knows left 0."""
    token = _padded([example.answer for example in examples])
    length = torch.tensor([len(example.answer) for example in examples])
    zeros = torch.zeros(token.shape)
    rows = len(examples)
    return Answers(
        prompt=_padded([example.prompt for example in examples]),
        prompt_length=torch.tensor([len(example.prompt) for example in examples]),
        prompt_of=torch.arange(rows),
        token=token,
        mask=torch.arange(token.shape[1]) < length[:, None],
        logprob=zeros,
        version=zeros.long(),
        reward=torch.zeros(rows),
        truncated=torch.zeros(rows, dtype=torch.bool),
    )


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    parts = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)


@torch.no_grad()
def answers_to(
    model: LanguageModel,
    prompts: Sequence[tuple[int, ...]],
    most: int,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """An answer to each prompt, without the token that ends it.

    It reads everything again for every token: for short answers, where no sampler is at hand.

    Args:
        model: asked at its temperature.
        prompts: in tokens.
        most: tokens of an answer at most.
        generator: draws tokens; None: the most probable ones.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    open_rows = list(range(len(prompts)))
    for _ in range(most):
        if not open_rows:
            break
        asked = [Example(prompts[row], (*answers[row], 0)) for row in open_rows]
        laid = laid_out(batched(asked))
        hidden = model.model(laid)[laid.source].view(
            len(asked), -1, model.head.shape[1]
        )
        logits = F.linear(hidden[:, -1], model.head).float() / model.temperature
        chosen = logits.argmax(-1)
        if generator is not None:
            noise = torch.empty_like(logits).exponential_(generator=generator)
            chosen = (logits - noise.log()).argmax(-1)
        for row, token in zip(list(open_rows), chosen.tolist(), strict=True):
            if token in model.tokenizer.end:
                open_rows.remove(row)
            else:
                answers[row].append(token)
    return answers


@contextmanager
def one_thread() -> Generator[None]:
    """One thread of torch's: the bits of a product depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
