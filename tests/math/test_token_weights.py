"""Weights of tokens by hand, and that a loss does not depend on how sequences are split and packed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch

from shoal.math.losses import masked_mean
from shoal.math.token_losses import clipped_surrogate
from shoal.math.token_ratios import token_ratio
from shoal.math.token_weights import token_weights, weighted_sum

if TYPE_CHECKING:
    from collections.abc import Iterator

MASK = torch.tensor([[1, 1, 1], [0, 1, 0], [1, 0, 1]]).bool()


def test_weights_by_hand() -> None:
    """Three sequences of 3, 1 and 2 tokens, six in all, of at most four each."""
    expected = torch.tensor([[1 / 9, 1 / 9, 1 / 9], [0, 1 / 3, 0], [1 / 6, 0, 1 / 6]])
    torch.testing.assert_close(token_weights(MASK, normalize="sequence"), expected)
    torch.testing.assert_close(token_weights(MASK, normalize="token"), MASK / 6)
    torch.testing.assert_close(token_weights(MASK, normalize="constant", max_length=4), MASK / 12)


def test_truncated_sequences_weigh_nothing() -> None:
    """They are counted as sequences, their tokens not as tokens."""
    truncated = torch.tensor([False, False, True])
    kept = MASK & ~truncated[:, None]
    given: Any = partial(token_weights, MASK, truncated=truncated)
    expected = torch.tensor([[1 / 9, 1 / 9, 1 / 9], [0, 1 / 3, 0], [0, 0, 0]])
    torch.testing.assert_close(given(normalize="sequence"), expected)
    torch.testing.assert_close(given(normalize="token"), kept / 4)
    torch.testing.assert_close(given(normalize="constant", max_length=4), kept / 12)


def test_nothing_sampled_weighs_nothing() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    options: Any = [{"normalize": "sequence"}, {"normalize": "token"}, {"normalize": "constant", "max_length": 4}]
    for option in options:
        assert token_weights(nothing, **option).tolist() == [[0] * 3] * 2


def test_what_weighs_nothing_is_not_looked_at() -> None:
    """Neither in the sum nor in its gradient."""
    loss = torch.tensor([2.0, torch.nan, torch.inf], requires_grad=True)
    total = weighted_sum(loss, torch.tensor([0.5, 0, 0]))
    total.backward()
    assert total == 1
    assert loss.grad is not None
    assert loss.grad.tolist() == [0.5, 0, 0]


def test_what_does_not_fit_is_refused() -> None:
    wrong: Any = "length"
    with pytest.raises(ValueError, match="got 'length'"):
        token_weights(MASK, normalize=wrong)
    with pytest.raises(ValueError, match="max_length >= 1 tokens a sequence, got None"):
        token_weights(MASK, normalize="constant")
    with pytest.raises(AssertionError):
        token_weights(MASK.float(), normalize="token")
    with pytest.raises(AssertionError):
        token_weights(MASK, normalize="token", truncated=torch.tensor([True]))


class Batch:
    """Four answers of 5, 1, 3 and 2 sampled tokens by a table of logits [V, V], one with a tool's output inside."""

    tokens = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 0, 0, 0, 0], [2, 2, 4, 1, 3, 0], [3, 1, 1, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 0, 1, 1, 0], [1, 1, 0, 0, 0]]).bool()
    advantage = torch.tensor([1.0, -2.0, 0.5, 3.0])

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(5, 5, generator=generator).requires_grad_()
        self.old = self.logprob(self.table.detach() + 0.3 * torch.randn(5, 5, generator=generator), self.tokens)

    def logprob(self, table: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Of each token but the first, given the one before it [S, L]."""
        return table.log_softmax(-1)[tokens[:, :-1], tokens[:, 1:]]

    def loss(self, chosen: list[int]) -> torch.Tensor:
        """The token losses of some of the sequences [S, L]."""
        logprob, mask = self.logprob(self.table, self.tokens[chosen]), self.mask[chosen]
        ratio = token_ratio(logprob, self.old[chosen], mask)
        advantage = self.advantage[chosen, None].expand(mask.shape)
        return clipped_surrogate(ratio, advantage, eps_low=0.2, eps_high=0.2)

    def packed(self, chosen: list[int], weight: torch.Tensor) -> torch.Tensor:
        """The loss of one row in which these sequences stand one after another, without padding."""
        length = [2 + int(self.mask[i].nonzero().max()) for i in chosen]
        row = torch.cat([self.tokens[i, :n] for i, n in zip(chosen, length, strict=True)])[None]
        parts = list(zip(chosen, length, strict=True))

        def flat(x: torch.Tensor) -> torch.Tensor:
            """Of tokens after the first of the row; 0 at the beginning of the next sequence."""
            pieces = [torch.cat([torch.zeros_like(x[i, :1]), x[i, : n - 1]]) for i, n in parts]
            return torch.cat(pieces)[None, 1:]

        mask = flat(self.mask)
        ratio = token_ratio(self.logprob(self.table, row), flat(self.old), mask)
        advantage = flat(self.advantage[:, None].expand(self.mask.shape))
        loss = clipped_surrogate(ratio, advantage, eps_low=0.2, eps_high=0.2)
        return weighted_sum(loss, flat(weight))

    def gradient(self, *losses: torch.Tensor) -> torch.Tensor:
        """Of micro-batches, added up."""
        parts = [torch.autograd.grad(loss, self.table)[0] for loss in losses]
        return torch.stack(parts).sum(0)


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """Every way to split into parts."""
    if not items:
        yield []
        return
    first, *rest = items
    for parts in partitions(rest):
        yield [[first], *parts]
        for i, part in enumerate(parts):
            yield [*parts[:i], [first, *part], *parts[i + 1 :]]


ALL = [0, 1, 2, 3]
LENGTHS = (5, 1, 3, 2)


@pytest.mark.parametrize(
    ("normalize", "divisors"),
    [
        ("sequence", [4 * n for n in LENGTHS]),
        ("token", [sum(LENGTHS)] * 4),
        ("constant", [4 * 8] * 4),
    ],
)
def test_a_loss_does_not_depend_on_splits_and_packing(normalize: Any, divisors: list[int]) -> None:
    """In all 15 ways to split four sequences: the same gradient, in padded rows and in packed ones."""
    batch = Batch()
    given: Any = partial(token_weights, normalize=normalize, max_length=8)
    weight = given(batch.mask)
    whole = batch.loss(ALL)
    sums = [whole[i][batch.mask[i]].sum() / divisors[i] for i in ALL]
    expected = batch.gradient(torch.stack(sums).sum())
    assert expected.abs().max() > 0.05
    total = torch.tensor(11 if normalize == "token" else 4)
    ways = list(partitions(ALL))
    assert len(ways) == 15
    for parts in ways:
        split = batch.gradient(*(weighted_sum(batch.loss(part), weight[part]) for part in parts))
        torch.testing.assert_close(split, expected)
        alone = (given(batch.mask[part], total=total) for part in parts)
        split = batch.gradient(*(weighted_sum(batch.loss(part), w) for part, w in zip(parts, alone, strict=True)))
        torch.testing.assert_close(split, expected)
        packed = batch.gradient(*(batch.packed(part, weight) for part in parts))
        torch.testing.assert_close(packed, expected)


def test_means_of_micro_batches_depend_on_splits() -> None:
    """What the weights are for: the mean over tokens, taken in each half and averaged, is another loss."""
    batch = Batch()
    halves = [masked_mean(batch.loss(part), batch.mask[part]) / 2 for part in ([0, 2], [1, 3])]
    whole = batch.gradient(masked_mean(batch.loss(ALL), batch.mask))
    assert (batch.gradient(*halves) - whole).abs().max() > 0.05
