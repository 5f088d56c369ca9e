"""Gradient steps on answers: the parts of a batch add up to the whole, whatever they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.optim import SGD

from shoal.learn.answer_parts import parts
from shoal.learn.answers import minibatches_of
from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from shoal.types import Answers, ConfigError
from tests.llm.toy import toy_answers, toy_model

if TYPE_CHECKING:
    from torch import Tensor


class Found(NamedTuple):
    """The loss, once more."""

    loss: Tensor


def likelihood(output: Any, batch: Any, cfg: None) -> tuple[Tensor, Found]:
    """The negative log-likelihood, weighted."""
    value = -(output.logprob * batch.weight).sum()
    return value, Found(value)


def answers() -> Answers:
    """Six answers to three prompts, of two turns in one of them."""
    said = [[2, 3, 0, 0], [4, 0, 0, 0], [5, 6, 7, 0], [3, 3, 3, 0], [9, 0, 0, 0], [8, 2, 0, 0]]
    length = torch.tensor([3, 2, 4, 4, 2, 3])
    mask = torch.arange(4) < length[:, None]
    mask[2, 1] = False
    return toy_answers([[2, 1], [3, 3, 1], [4]], [0, 0, 1, 1, 1, 2], said, mask)


def test_a_part_has_as_many_tokens_as_it_may() -> None:
    """Prompts of 2, 3 and 1 tokens, answers of 3, 2 | 4, 4 | 2, 3: a prompt counts again in the next part."""
    cuts = [(len(part), part.prompt_of.tolist()) for part in parts(answers(), 11)]
    assert cuts == [(2, [0, 0]), (2, [0, 0]), (2, [0, 1])]
    assert [part.token.shape[1] for part in parts(answers(), 11)] == [3, 4, 3]


@pytest.mark.parametrize("most_tokens", [1, 7, 12, 100])
def test_the_gradient_does_not_depend_on_the_parts(most_tokens: int) -> None:
    """Equal weights after a step, up to rounding, and equal statistics."""
    whole = Learner(toy_model(), SGD, lr=1.0, hardware=Hardware(micro_tokens=1000))
    cut = Learner(toy_model(), SGD, lr=1.0, hardware=Hardware(micro_tokens=most_tokens))
    before = whole.flat.clone()
    first = whole.step(likelihood, answers(), None)
    second = cut.step(likelihood, answers(), None)
    torch.testing.assert_close(first.loss, second.loss)
    torch.testing.assert_close(whole.flat, cut.flat, rtol=1e-5, atol=1e-6)
    assert not torch.equal(whole.flat, before)


def test_answers_are_read_apart_from_each_other() -> None:
    """Each answer has the log-probabilities that it has alone, whatever stands beside it."""
    model, batch = toy_model(), answers()
    together = model(batch).logprob
    for row in range(6):
        part = next(iter(parts(replace(batch, mask=batch.mask & (torch.arange(6) == row)[:, None]), 100)))
        torch.testing.assert_close(model(part).logprob[row], together[row, : part.token.shape[1]])


def test_minibatches_are_whole_groups() -> None:
    """Each answer is in one of them, with its own prompt."""
    batch, seen = answers(), []
    for part in minibatches_of(batch, 2, np.random.default_rng(0)):
        for row in range(len(part)):
            number = int(part.reward[row])
            seen.append(number)
            prompt = part.prompt[part.prompt_of[row]]
            assert torch.equal(prompt, batch.prompt[batch.prompt_of[number]])
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match="num_minibatches=4, but a batch has 3 groups"):
        next(iter(minibatches_of(batch, 4, np.random.default_rng(0))))
