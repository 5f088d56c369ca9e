"""The layout of a batch: what answers have said alike is read once, and counts as if each had said it alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from shoal.learn.answer_parts import parts
from shoal.llm.layout import laid_out
from shoal.types import Answers
from tests.llm.toy import toy_answers, toy_model

if TYPE_CHECKING:
    from shoal.llm.model import LanguageModel

SAID = [[2, 3, 4, 0], [2, 3, 4, 0], [2, 3, 0, 0], [2, 5, 3, 4], [0, 0, 0, 0], [2, 3, 4, 0], [2, 6, 0, 0], [5, 5, 5, 5]]
LENGTH = torch.tensor([4, 4, 2, 4, 1, 3, 2, 4])


def answers() -> Answers:
    """Five answers to one prompt, three to another one of other length; one token of the last came from outside."""
    mask = torch.arange(4) < LENGTH[:, None]
    mask[7, 1] = False
    return toy_answers([[2, 3, 1], [2, 3]], [0, 0, 0, 0, 0, 1, 1, 1], SAID, mask)


def gradient(model: LanguageModel, *batches: Answers) -> torch.Tensor:
    """Of the weighted log-likelihood of all."""
    model.zero_grad()
    for batch in batches:
        assert batch.weight is not None
        (model(batch).logprob * batch.weight).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_what_was_said_alike_is_read_once() -> None:
    """Beginnings [2 [3 [4]] [5 3]] of the first prompt, [2 [3]] and [5 5 5] of the second; no last token."""
    laid = laid_out(answers())
    assert laid.token.tolist() == [2, 3, 1, 2, 3, 2, 3, 4, 5, 3, 2, 3, 5, 5, 5]
    assert laid.position.tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 4, 5, 2, 3, 2, 3, 4]


def test_each_answer_is_learned_as_if_it_were_alone() -> None:
    """Log-probabilities, and the sum of the gradients; each alone is in a part that holds nothing else."""
    model, batch = toy_model(), answers()
    alone = list(parts(batch, 1))
    assert [len(part) for part in alone] == [1] * 8
    together = model(batch).logprob
    for row, part in enumerate(alone):
        torch.testing.assert_close(model(part).logprob[0], together[row, : part.token.shape[1]])
    torch.testing.assert_close(gradient(model, batch), gradient(model, *alone), rtol=1e-4, atol=1e-5)


def test_answers_whose_experts_are_known_are_read_apart() -> None:
    """Each keeps its own routing: 5 tokens of prompts, 16 of answers less the last of each."""
    routing = torch.arange(8 * 4, dtype=torch.int16).view(8, 4, 1, 1)
    laid = laid_out(replace(answers(), routing=routing))
    assert laid.routing is not None
    assert len(laid.token) == len(laid.routing) == 5 + int((LENGTH - 1).sum())
    assert laid.routing[5:, 0, 0].tolist() == [1, 2, 3, 5, 6, 7, 9, 13, 14, 15, 21, 22, 25, 29, 30, 31]
