"""Probabilities among kept tokens: by hand, and that renormalized ratios of an older policy's samples are unbiased."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.distributions import Categorical

from shoal.math.kept_sets import kept_log_softmax, kept_logprob, token_entropy
from shoal.math.token_corrections import importance_weights
from shoal.math.token_losses import weighted_policy_gradient
from shoal.math.token_weights import token_weights, weighted_sum

LOGITS = torch.tensor([[1.0, 8, 1, 4, 2]]).log()
"""Probabilities 1/16, 1/2, 1/16, 1/4 and 1/8."""


KEPT = torch.tensor([[False, True, False, True, False]])


def test_logprob_by_hand() -> None:
    """8 and 4 are 2/3 and 1/3 of what is kept; their squares 4/5 and 1/5; 8 of all is 1/2."""
    rows, kept = LOGITS.expand(3, 5), KEPT.expand(3, 5)
    whole = kept_log_softmax(LOGITS, KEPT)
    torch.testing.assert_close(whole.exp(), torch.tensor([[0, 2 / 3, 0, 1 / 3, 0]]))
    found = kept_logprob(rows, torch.tensor([1, 3, 0]), kept)
    torch.testing.assert_close(found.exp(), torch.tensor([2 / 3, 1 / 3, 0]))
    assert found[2] == -torch.inf
    found = kept_logprob(rows, torch.tensor([1, 3, 0]), kept, temperature=0.5)
    torch.testing.assert_close(found.exp(), torch.tensor([4 / 5, 1 / 5, 0]))
    found = kept_logprob(rows, torch.tensor([1, 3, 0]))
    torch.testing.assert_close(found.exp(), torch.tensor([1 / 2, 1 / 4, 1 / 16]))
    assert kept_logprob(rows.bfloat16(), torch.tensor([1, 3, 0])).dtype == torch.float32


def test_gradients_by_hand() -> None:
    """One less 2/3 at the token, -1/3 at the other kept one, over the temperature; none elsewhere."""
    logits = LOGITS.clone().requires_grad_()
    loss = kept_logprob(logits, torch.tensor([1]), KEPT, temperature=1.0).sum()
    expected = torch.tensor([[0, 1 / 3, 0, -1 / 3, 0]])
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], expected)
    loss = kept_logprob(logits, torch.tensor([3]), KEPT, temperature=0.5).sum()
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], torch.tensor([[0, -8 / 5, 0, 8 / 5, 0]]))


def test_entropy_by_hand() -> None:
    """Of 2/3 and 1/3; of all, 1/2 + 1/4 * 2 + 1/8 * 3 + 2/16 * 4 = 15/8 bits; of one token 0."""
    expected = math.log(3) - 2 / 3 * math.log(2)
    torch.testing.assert_close(entropy(LOGITS, KEPT), torch.tensor([expected]))
    torch.testing.assert_close(entropy(LOGITS), torch.tensor([15 / 8 * math.log(2)]))
    assert entropy(LOGITS, torch.tensor([[False, True, False, False, False]])).tolist() == [0]


def entropy(logits: torch.Tensor, kept: torch.Tensor | None = None, temperature: float = 1.0) -> torch.Tensor:
    return token_entropy(kept_log_softmax(logits, kept, temperature=temperature))


def test_entropys_gradient_is_that_of_the_kept_tokens_alone() -> None:
    logits = LOGITS.clone().requires_grad_()
    found = torch.autograd.grad(entropy(logits, KEPT, 0.7).sum(), logits)[0]
    alone = LOGITS[:, [1, 3]].clone().requires_grad_()
    expected = torch.autograd.grad(Categorical(logits=alone / 0.7).entropy().sum(), alone)[0]
    torch.testing.assert_close(found[:, [1, 3]], expected)
    assert found[:, [0, 2, 4]].tolist() == [[0, 0, 0]]


def test_gradients_are_finite_whatever_is_kept() -> None:
    """A token that was not kept, nothing kept, -inf among the kept logits, one token alone, and large logits."""
    logits = LOGITS.repeat(5, 1)
    logits[2, 3] = -torch.inf
    logits[4] *= 1e4
    kept = KEPT.repeat(5, 1)
    kept[1] = False
    kept[3, 3] = False
    logits.requires_grad_()
    logprob = kept_logprob(logits, torch.tensor([0, 1, 1, 1, 1]), kept)
    torch.testing.assert_close(logprob, torch.tensor([-torch.inf, math.log(1 / 2), 0, 0, 0]))
    for found, without in ((logprob, [0, 2, 3, 4]), (entropy(logits, kept), [2, 3, 4])):
        gradient = torch.autograd.grad(found.sum(), logits)[0]
        assert gradient.isfinite().all()
        assert not gradient[without].any()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"above 0, got 0\.0"):
        kept_logprob(LOGITS, torch.tensor([1]), temperature=0.0)
    with pytest.raises(AssertionError):
        kept_logprob(LOGITS, torch.tensor([1, 2]))
    with pytest.raises(AssertionError):
        kept_logprob(LOGITS, torch.tensor([1]), KEPT[:, :4])
    with pytest.raises(AssertionError):
        kept_log_softmax(LOGITS[0])


def cut(logits: torch.Tensor, *, top_p: float = 1.0, min_p: float = 0.0) -> torch.Tensor:
    """What a sampler keeps: the fewest likeliest tokens that make top_p, and those that have min_p of the likeliest."""
    kept = torch.zeros_like(logits, dtype=torch.bool)
    for row, chances in enumerate(logits.softmax(-1).tolist()):
        sum_before = 0.0
        for token in sorted(range(len(chances)), key=chances.__getitem__, reverse=True):
            kept[row, token] = sum_before < top_p and chances[token] >= min_p * max(chances)
            sum_before += chances[token]
    return kept


class Bigrams:
    """Two tokens out of five: a table of logits [6, 5], its first row for the first token, another for each second.

    An older table sampled both, from what it kept of each row.
    """

    def __init__(self, **truncation: Any) -> None:
        self.generator = torch.Generator().manual_seed(4)
        self.old = torch.randn(6, 5, generator=self.generator)
        moved = self.old + 0.5 * torch.randn(6, 5, generator=self.generator)
        self.table = moved.requires_grad_()
        self.reward = torch.randn(5, 5, generator=self.generator)
        self.kept = cut(self.old, **truncation)
        self.all = torch.ones_like(self.kept)

    def chance(self) -> torch.Tensor:
        """What the older table samples from, a row each [6, 5]."""
        return self.old.masked_fill(~self.kept, -torch.inf).softmax(-1)

    def sample(self, n: int) -> torch.Tensor:
        """Pairs of tokens [n, 2]."""
        chance = self.chance()
        first = torch.multinomial(chance[0], n, replacement=True, generator=self.generator)
        second = torch.multinomial(chance[1 + first], 1, generator=self.generator)[:, 0]
        return torch.stack([first, second], 1)

    def logprob(self, table: torch.Tensor, tokens: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Of both tokens [n, 2]."""
        rows = torch.stack([torch.zeros_like(tokens[:, 0]), 1 + tokens[:, 0]], 1).flatten()
        return kept_logprob(table[rows], tokens.flatten(), kept[rows]).view(tokens.shape)

    def exact(self, kept: torch.Tensor) -> torch.Tensor:
        """The gradient of the mean reward over all 25 pairs, by the table that learns."""
        chance = self.table.masked_fill(~kept, -torch.inf).softmax(-1)
        mean = (chance[0][:, None] * chance[1:] * self.reward).sum()
        return torch.autograd.grad(mean, self.table)[0]

    def estimate(self, tokens: torch.Tensor, share: torch.Tensor, kept: torch.Tensor, old_kept: torch.Tensor) -> Any:
        """The policy gradient of pairs with a share each [n], corrected by importance weights [6, 5]."""
        mask = torch.ones_like(tokens, dtype=torch.bool)
        logprob = self.logprob(self.table, tokens, kept)
        old = self.logprob(self.old, tokens, old_kept)
        weight = importance_weights(logprob, old, mask, level="sequence", most=math.inf)
        reward = self.reward[tokens[:, 0], tokens[:, 1]]
        loss = weighted_policy_gradient(logprob, reward, weight, mask)
        total = weighted_sum(loss, share[:, None].expand(mask.shape))
        return -torch.autograd.grad(total, self.table)[0]

    def sampled(self, tokens: torch.Tensor, kept: torch.Tensor, old_kept: torch.Tensor) -> torch.Tensor:
        """Of 64 batches, the mean over sequences [64, 6, 5]."""
        found: list[torch.Tensor] = []
        for batch in tokens.chunk(64):
            mask = torch.ones_like(batch, dtype=torch.bool)
            share = token_weights(mask, normalize="constant", max_length=1)[:, 0]
            found.append(self.estimate(batch, share, kept, old_kept))
        return torch.stack(found)

    def expected(self, kept: torch.Tensor, old_kept: torch.Tensor) -> torch.Tensor:
        """Its expectation over all pairs that the older table may sample [6, 5]."""
        chance = self.chance()
        pairs = torch.cartesian_prod(torch.arange(5), torch.arange(5))
        of_pair = (chance[0][:, None] * chance[1:]).flatten()
        there = of_pair > 0
        return self.estimate(pairs[there], of_pair[there], kept, old_kept)


def errors_of(estimates: torch.Tensor, exact: torch.Tensor) -> float:
    """The distance of the mean from what is exact, in standard errors of it, all coordinates together."""
    error = estimates.var(0) / len(estimates)
    return ((estimates.mean(0) - exact).square().sum() / error.sum()).sqrt().item()


@pytest.mark.parametrize("truncation", [{"top_p": 0.8}, {"min_p": 0.25}], ids=["top-p", "min-p"])
def test_an_older_policys_truncated_samples_are_unbiased_within_what_it_kept(truncation: Any) -> None:
    """The renormalized ratio gives the exact gradient; the ratio of whole softmaxes gives none of the two there are.

    Neither against what the sampler says, which is renormalized, nor against the older table's own whole softmax;
    neither the gradient of the policy within the kept tokens, nor that of the whole one.
    """
    words = Bigrams(**truncation)
    # Of both tokens several are kept, and some are not: else one's ratio would be that of the sequence.
    assert all(1 < count < 5 for count in words.kept[:3].sum(1).tolist())
    tokens = words.sample(1 << 16)
    within, whole = words.exact(words.kept), words.exact(words.all)
    assert (within - whole).abs().max() > 0.05
    torch.testing.assert_close(words.expected(words.kept, words.kept), within, atol=1e-6, rtol=1e-5)
    assert errors_of(words.sampled(tokens, words.kept, words.kept), within) < 2
    for old_kept in (words.kept, words.all):
        unmasked, expected = words.sampled(tokens, words.all, old_kept), words.expected(words.all, old_kept)
        assert errors_of(unmasked, expected) < 2
        for exact in (within, whole):
            assert (expected - exact).abs().max() > 0.05
            assert errors_of(unmasked, exact) > 20
