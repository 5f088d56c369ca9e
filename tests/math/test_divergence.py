"""Estimates of the KL divergence: by hand, and their means and gradients over a vocabulary that is enumerated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from shoal.math.divergence import kl_estimate, penalized_return, penalized_reward
from shoal.math.overlong import overlong_penalty
from shoal.math.token_ratios import token_ratio

if TYPE_CHECKING:
    from collections.abc import Callable

ESTIMATORS: Any = ("k1", "k2", "k3")


def test_estimates_by_hand() -> None:
    """Twice and a quarter of the reference: log 2 and -log 4; halves of squares; 1/2 - 1 + log 2 and 4 - 1 - log 4."""
    mask = torch.tensor([[True, False, True]])
    ref = torch.tensor([[-2.0, -torch.inf, -1.0]])
    logprob = ref + torch.tensor([[2, 1, 0.25]]).log()
    two, four = math.log(2), math.log(4)
    expected = [[two, 0, -four], [two**2 / 2, 0, four**2 / 2], [-0.5 + two, 0, 3 - four]]
    slopes = [[1, 0, 1], [two, 0, -four], [1 - 0.5, 0, 1 - 4]]
    for name, value, slope in zip(ESTIMATORS, expected, slopes, strict=True):
        learned = logprob.clone().requires_grad_()
        found = kl_estimate(learned, ref, mask, estimator=name)
        torch.testing.assert_close(found.detach(), torch.tensor([value]))
        torch.testing.assert_close(torch.autograd.grad(found.sum(), learned)[0], torch.tensor([slope]).float())


def test_estimates_do_not_overflow() -> None:
    logprob = torch.tensor([[-300.0]], requires_grad=True)
    found = kl_estimate(logprob, torch.tensor([[-1.0]]), torch.tensor([[True]]), estimator="k3")
    assert found.isfinite().all()
    assert torch.autograd.grad(found.sum(), logprob)[0].tolist() == [[0]]


class Vocabulary:
    """A policy, the one that sampled, and a reference, of one token out of four."""

    def __init__(self) -> None:
        self.logits = torch.tensor([0.5, -1.0, 0.2, 1.0], dtype=torch.float64, requires_grad=True)
        self.old = torch.tensor([0.0, -0.5, 1.0, 0.5], dtype=torch.float64).log_softmax(0)
        self.ref = torch.tensor([-0.5, 0.5, 0.0, 0.3], dtype=torch.float64).log_softmax(0)

    def mean_under(self, chance: torch.Tensor, estimate: Callable[..., torch.Tensor]) -> torch.Tensor:
        """The mean of an estimate [4, 1] of each token's log-probabilities, tokens drawn by a constant chance [4]."""
        mask = torch.ones(4, 1, dtype=torch.bool)
        logprob = self.logits.log_softmax(0)
        return (chance.detach() * estimate(logprob[:, None], self.ref[:, None], mask)[:, 0]).sum()

    def slope(self, loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, self.logits)[0]

    def kl(self, *, reverse: bool = False) -> torch.Tensor:
        logprob = self.logits.log_softmax(0)
        first, second = (self.ref, logprob) if reverse else (logprob, self.ref)
        return (first.exp() * (first - second)).sum()


def test_means_and_gradients_of_estimates() -> None:
    """Over all tokens: k1 and k3 have the KL's value; of the gradients only k2's is the KL's."""
    words = Vocabulary()
    chance = words.logits.softmax(0)
    means: dict[str, torch.Tensor] = {}
    for name in ESTIMATORS:
        means[name] = words.mean_under(chance, lambda *given, name=name: kl_estimate(*given, estimator=name))
    torch.testing.assert_close(means["k1"], words.kl())
    torch.testing.assert_close(means["k3"], words.kl())
    assert (means["k2"] - words.kl()).abs() > 0.01
    slopes = {name: words.slope(mean) for name, mean in means.items()}
    torch.testing.assert_close(slopes["k1"], torch.zeros_like(slopes["k1"]))
    torch.testing.assert_close(slopes["k2"], words.slope(words.kl()))
    torch.testing.assert_close(slopes["k3"], words.slope(words.kl(reverse=True)))
    assert (slopes["k3"] - slopes["k2"]).abs().max() > 0.01


def test_weighted_by_the_ratio_the_gradient_is_the_kls() -> None:
    """Tokens of an older policy, k3 times pi / pi_old: the value and the gradient of KL(pi, ref)."""
    words = Vocabulary()

    def weighted(logprob: torch.Tensor, ref: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        ratio = token_ratio(logprob, words.old[:, None], mask)
        return ratio * kl_estimate(logprob, ref, mask, estimator="k3")

    found = words.mean_under(words.old.exp(), weighted)
    torch.testing.assert_close(found, words.kl())
    torch.testing.assert_close(words.slope(found), words.slope(words.kl()))


def test_penalties_by_hand() -> None:
    """Beta 2, from the last token: 2 - 2/4; off the mask the same; less 2 * 1; less 2 * 1/2."""
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0]]).bool()
    kl = torch.tensor([[0.5, 1, torch.nan, 0.25], [1, 1, 1, torch.inf]], requires_grad=True)
    reward = torch.tensor([2.0, -1])
    found = penalized_return(reward, kl, mask, beta=2)
    assert found.tolist() == [[-1.5, -0.5, 1.5, 1.5], [-1] * 4]
    assert not found.requires_grad
    assert penalized_reward(reward, kl, mask, beta=2).tolist() == [-1.5, -1]


def test_overlong_penalty_by_hand() -> None:
    """At most 10 tokens, the last 4 of which cost a quarter each."""
    length = torch.tensor([0, 5, 6, 7, 8, 10, 15])
    found = overlong_penalty(length, max_length=10, cache=4)
    assert found.tolist() == [0, 0, 0, -0.25, -0.5, -1, -1]
    found = overlong_penalty(length, max_length=10, cache=10)
    torch.testing.assert_close(found, torch.tensor([0, -0.5, -0.6, -0.7, -0.8, -1, -1]))


def test_what_does_not_fit_is_refused() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)
    wrong: Any = "k4"
    with pytest.raises(ValueError, match="got 'k4'"):
        kl_estimate(torch.zeros(1, 2), torch.zeros(1, 2), mask, estimator=wrong)
    for cache in (0, 11):
        with pytest.raises(ValueError, match=f"cache = {cache} of 10"):
            overlong_penalty(torch.tensor([1]), max_length=10, cache=cache)
    with pytest.raises(AssertionError):
        penalized_return(torch.zeros(2), torch.zeros(1, 2), mask, beta=1)
    with pytest.raises(AssertionError):
        penalized_reward(torch.zeros(1), torch.zeros(1, 3), mask, beta=1)
