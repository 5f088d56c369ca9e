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

    from torch import Tensor, nn

    from shoal.llm.model import LanguageModel

WARM_UP = 20
"""Updates until the learning rate is whole."""
DECAY, BETAS = 0.01, (0.9, 0.98)
"""AdamW's."""
NORM = 1.0
"""What the gradient is clipped to."""
HALVINGS = 4
"""Measurements that look for the place on the way between two updates where the second part ends."""


@dataclass(frozen=True, slots=True)
class Pretraining:
    """What a model is shown, and when it has seen enough.

    First it learns the task from its solutions. Then it learns, from examples that are wrong for the most part, to be
    right only now and then: it ends as a model that could do better than it does, which is where reinforcement starts.
    """

    skill: float = 0.9
    """The first part ends when this share of answers, drawn at temperature 1 to prompts that it was not shown, earns
    what a solution does, ..."""
    updates: int = 1000
    """... or after so many updates, over which the learning rate falls to a tenth."""
    success: float = 0.33
    """The second part ends where at most this share is right, and hardly less."""
    wrong: float = 0.75
    """The share of its examples whose solution is another prompt's."""
    examples: int = 8192
    """Prompts that it is shown, again and again."""
    batch: int = 64
    """Examples of an update."""
    learning_rate: float = 3e-3
    spoiling_rate: float = 3e-4
    """The learning rate of the second part."""
    every: int = 100
    """Updates of the first part from one measurement to the next; a twentieth of them in the second."""
    measured: int = 512
    """Prompts of a measurement."""


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and what is to be said to it, in tokens."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def pretrain(
    model: LanguageModel,
    right: Sequence[Example],
    spoiled: Sequence[Example],
    settings: Pretraining,
    generator: torch.Generator,
    measure: Callable[[int], float],
) -> tuple[float, float]:
    """Trains in two parts (see `Pretraining`), and returns the share of right answers after each.

    Args:
        model: trained in place.
        right: prompts with their solutions.
        spoiled: prompts with solutions of which many are wrong.
        settings: see there.
        generator: draws the order of examples.
        measure: told how many updates were made; gives the share of right answers.
    """
    learning = Learning(model, settings, generator)
    order = learning.draw(right)
    skill, done = 0.0, 0
    while done < settings.updates and skill < settings.skill:
        left = 1 - done / settings.updates
        learning.update(next(order), settings.learning_rate * max(0.1, left))
        done += 1
        if done % settings.every == 0 or done == settings.updates:
            skill = measure(done)
    order = learning.draw(spoiled)
    success, last = skill, done + settings.updates
    above = weights_of(model)
    while done < last and success > settings.success:
        learning.update(next(order), settings.spoiling_rate)
        done += 1
        if done % max(1, settings.every // 20) == 0:
            success = measure(done)
            if success > settings.success:
                above = weights_of(model)
    if success < settings.success < skill:
        success = go_back(
            model, above, success, settings.success, lambda: measure(done)
        )
    return skill, success


def weights_of(model: nn.Module) -> list[Tensor]:
    """A copy of each parameter."""
    return [value.detach().clone() for value in model.parameters()]


@torch.no_grad()
def go_back(
    model: nn.Module,
    above: Sequence[Tensor],
    success: float,
    wanted: float,
    measure: Callable[[], float],
) -> float:
    """Puts the model where it is right in `wanted` of its answers or a little less; returns the share there.

    A few updates of the second part may cost more than half of the right answers, so that none ends near the share
    that is wanted. On the straight way from the weights before them to those after, some do.

    Args:
        model: set in place.
        above: parameters with which it is right more often.
        success: the share of right answers as it is, at most `wanted`.
        wanted: the share.
        measure: gives the model's.
    """
    below, parameters = weights_of(model), list(model.parameters())
    low, high = 0.0, 1.0  # parts of the way: right more often, and at most as often
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        _place(parameters, above, below, middle)
        found = measure()
        if found > wanted:
            low = middle
        else:
            high, success = middle, found
    _place(parameters, above, below, high)
    return success


def _place(
    parameters: Sequence[Tensor],
    above: Sequence[Tensor],
    below: Sequence[Tensor],
    part: float,
) -> None:
    for value, start, end in zip(parameters, above, below, strict=True):
        value.copy_(torch.lerp(start, end, part))


class Learning:
    """Updates of a model by examples."""

    def __init__(
        self, model: LanguageModel, settings: Pretraining, generator: torch.Generator
    ) -> None:
        """None yet; `generator` draws the order of examples."""
        self.model, self.batch, self.generator = model, settings.batch, generator
        self.updates = 0
        self.optimizer = torch.optim.AdamW(
            model.parameters(), weight_decay=DECAY, betas=BETAS, fused=True
        )

    def update(self, examples: Sequence[Example], rate: float) -> None:
        """One update at a learning rate, which rises to it over the first ones."""
        self.updates += 1
        self.optimizer.param_groups[0]["lr"] = rate * min(1.0, self.updates / WARM_UP)
        batch = batched(examples)
        loss = -self.model(batch).logprob.sum() / batch.mask.sum()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), NORM)
        self.optimizer.step()

    def draw(self, examples: Sequence[Example]) -> Iterator[list[Example]]:
        """Some at a time, each once before any comes again."""
        rest: list[int] = []
        while True:
            while len(rest) < self.batch:
                order = torch.randperm(len(examples), generator=self.generator)
                rest += order.tolist()
            yield [examples[index] for index in rest[: self.batch]]
            rest = rest[self.batch :]


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
