"""Several learners of answers: whoever computes the gradient of which, the step is that of one learner."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from torch.optim import SGD

from shoal.learn.answer_parts import parts_of_rank, shared_out
from shoal.learn.answers import logprobs_of
from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from tests.learn.ranks import together
from tests.learn.test_answers import answers, likelihood
from tests.llm.toy import toy_model

if TYPE_CHECKING:
    from shoal.learn.ranks import Ranks
    from shoal.llm.model import LanguageModel


def test_shares_have_about_as_many_tokens() -> None:
    """Answers with their prompts of 5, 4, 7, 7, 5 and 4 tokens: 16 and 16; more ranks than answers leave some idle."""
    assert shared_out(answers(), 1) == [0, 6]
    assert shared_out(answers(), 2) == [0, 3, 6]
    borders = shared_out(answers(), 9)
    assert (borders[0], borders[-1], sorted(borders)) == (0, 6, borders)
    firsts = [part.first for rank in range(9) for part in parts_of_rank(answers(), 100, rank=rank, size=9)]
    assert sorted(firsts) == [-1, -1, -1, 0, 1, 2, 3, 4, 5]


def one_rank(ranks: Ranks, model: LanguageModel, most_tokens: int) -> tuple[Learner, torch.Tensor, torch.Tensor]:
    """What one of several learners comes to: its loss, and log-probabilities after the step."""
    hardware = Hardware(micro_tokens=most_tokens, ranks=ranks)
    learner = Learner(copy.deepcopy(model), SGD, lr=1.0, hardware=hardware)
    found = learner.step(likelihood, answers(), None)
    return learner, found.loss, logprobs_of(learner.networks["policy"], answers())


@pytest.mark.parametrize(("count", "most_tokens"), [(2, 1), (2, 1000), (3, 7), (8, 1000)])
def test_shares_of_answers_learn_what_the_whole_batch_does(count: int, most_tokens: int) -> None:
    """Weights, statistics and log-probabilities, whatever the parts; equal on all ranks bit for bit."""
    alone = Learner(toy_model(), SGD, lr=1.0, hardware=Hardware(micro_tokens=1000))
    loss = alone.step(likelihood, answers(), None).loss
    logprob = logprobs_of(alone.networks["policy"], answers())
    found = together(count, partial(one_rank, model=toy_model(), most_tokens=most_tokens))
    for learner, said, own in found:
        torch.testing.assert_close(said, loss)
        torch.testing.assert_close(learner.flat, alone.flat, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(own, logprob, rtol=1e-3, atol=1e-3)
        assert torch.equal(learner.flat, found[0][0].flat)
        assert torch.equal(own, found[0][2])
