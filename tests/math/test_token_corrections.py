"""Weights and masks for tokens of older policies, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from shoal.math.importance import within
from shoal.math.staleness import token_age, version_mask, version_weight
from shoal.math.token_corrections import decoupled_surrogate, importance_weights, off_policy_mask

MASK = torch.tensor([[1, 0, 1], [1, 1, 0]]).bool()
OLD = torch.tensor([[-1.0, torch.nan, -2], [-3, -1, -torch.inf]])
NEW = OLD + torch.tensor([[4.0, 1, 0.5], [0.25, 1, 1]]).log()
"""Ratios 4 and 1/2, 1/4 and 1: products 2 and 1/4, geometric means sqrt(2) and 1/2."""
TWO = math.sqrt(2)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"most": math.inf}, [[4, 0, 0.5], [0.25, 1, 0]]),
        ({"most": 2}, [[2, 0, 0.5], [0.25, 1, 0]]),
        ({"most": 2, "outside": "mask"}, [[0, 0, 0.5], [0, 1, 0]]),
        ({"most": 5, "least": 0.5, "outside": "mask"}, [[4, 0, 0.5], [0, 1, 0]]),
        ({"most": math.inf, "least": 0.3, "outside": "mask"}, [[4, 0, 0.5], [0, 1, 0]]),
        ({"most": math.inf, "level": "sequence"}, [[2, 0, 2], [0.25, 0.25, 0]]),
        ({"most": 1.5, "level": "sequence"}, [[1.5, 0, 1.5], [0.25, 0.25, 0]]),
        ({"most": 3, "level": "sequence", "outside": "mask"}, [[2, 0, 2], [0, 0, 0]]),
        ({"most": 3, "level": "mean", "outside": "mask"}, [[TWO, 0, TWO], [0.5, 0.5, 0]]),
        ({"most": 1.25, "level": "mean"}, [[1.25, 0, 1.25], [0.5, 0.5, 0]]),
    ],
)
def test_importance_weights_by_hand(option: Any, expected: list[list[float]]) -> None:
    found = importance_weights(NEW.clone().requires_grad_(), OLD, MASK, **option)
    assert not found.requires_grad
    torch.testing.assert_close(found, torch.tensor(expected).float())


def test_an_interval_of_weights_that_is_not_symmetric() -> None:
    ratio = torch.tensor([0.25, 0.5, 1, 5, 6])
    assert within(ratio, 5, least=0.5).tolist() == [0, 0.5, 1, 5, 0]
    assert within(ratio, math.inf, least=0).tolist() == ratio.tolist()


@pytest.mark.parametrize(
    ("advantage", "bound", "expected"),
    [
        # log(old / new) over the sequence: -log(2) / 2 = -0.35 and log(4) / 2 = 0.69.
        ([-1.0, -1.0], 0.5, [[1, 0, 1], [0, 0, 0]]),
        ([-1.0, 1.0], 0.5, [[1, 0, 1], [1, 1, 0]]),
        ([-1.0, 0.0], 0.5, [[1, 0, 1], [1, 1, 0]]),
        ([-1.0, -1.0], 0.7, [[1, 0, 1], [1, 1, 0]]),
        ([-1.0, -1.0], -0.5, [[0, 0, 0], [0, 0, 0]]),
        ([[-1.0, -1, -1], [-1, 1, -1]], 0.5, [[1, 0, 1], [0, 1, 0]]),
    ],
)
def test_off_policy_mask_by_hand(advantage: Any, bound: float, expected: list[list[int]]) -> None:
    found = off_policy_mask(NEW, OLD, torch.tensor(advantage), MASK, bound=bound)
    assert found.tolist() == [[bool(x) for x in row] for row in expected]


def test_decoupled_surrogate_by_hand() -> None:
    """Weights 4 cut to 3, 1/2; 1/4 and 1. Ratios of the current to the proximal policy 2, 1; 1/2, 1, A = 1 and -1."""
    logprob = (NEW + torch.tensor([[2, 1, 1], [0.5, 1, 1]]).log()).requires_grad_()
    proximal = NEW.clone().requires_grad_()
    loss = decoupled_surrogate(
        logprob, proximal, OLD, torch.tensor([1.0, -1]), MASK, eps_low=0.25, eps_high=0.5, most=3
    )
    # -3 min(2, 3/2); -1/2 * 1; -1/4 min(-1/2, -3/4); 1.
    torch.testing.assert_close(loss.detach(), torch.tensor([[-4.5, 0, -0.5], [0.1875, 1, 0]]))
    loss.sum().backward()
    assert proximal.grad is None
    assert logprob.grad is not None
    torch.testing.assert_close(logprob.grad, torch.tensor([[0, 0, -0.5], [0, 1, 0]]))


VERSION = torch.tensor([[3, 3, 4], [5, 7, 6], [-1, -1, -1]])
"""Sequences that were under way when weights changed, and what nobody sampled."""


def test_ages_by_hand() -> None:
    """At version 6; what is newer than the learner says is of age 0."""
    assert token_age(VERSION, 6).tolist() == [[3, 3, 2], [1, 0, 0], [7, 7, 7]]
    mask = version_mask(VERSION, 6, max_staleness=2)
    assert mask.tolist() == [[False, False, True], [True] * 3, [False] * 3]
    assert version_mask(VERSION, 5, max_staleness=0).tolist() == [[False] * 3, [True] * 3, [False] * 3]
    weight = version_weight(VERSION[:2], 6, decay=0.5)
    assert weight.tolist() == [[0.125, 0.125, 0.25], [0.5, 1, 1]]
    assert version_weight(VERSION, 6, decay=1).tolist() == [[1] * 3] * 3


def test_what_does_not_fit_is_refused() -> None:
    wrong: Any = {"level": "batch"}
    with pytest.raises(ValueError, match="got 'batch'"):
        importance_weights(NEW, OLD, MASK, most=2, **wrong)
    wrong = {"outside": "clip"}
    with pytest.raises(ValueError, match="got 'clip'"):
        importance_weights(NEW, OLD, MASK, most=2, **wrong)
    with pytest.raises(ValueError, match=r"lies in 0 to 1, got 1\.5"):
        importance_weights(NEW, OLD, MASK, most=2, least=1.5, outside="mask")
    with pytest.raises(ValueError, match=r"from 0, got -1"):
        version_mask(VERSION, 6, max_staleness=-1)
    for decay in (0.0, 1.5):
        with pytest.raises(ValueError, match="0 < decay <= 1"):
            version_weight(VERSION, 6, decay=decay)
    with pytest.raises(AssertionError):
        off_policy_mask(NEW, OLD[:1], torch.ones(2), MASK, bound=0.1)
    with pytest.raises(AssertionError):
        importance_weights(NEW[0], OLD[0], MASK[0], most=2)
