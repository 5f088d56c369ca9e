"""Tokens drawn from logits: the sets that top-k, top-p and min-p keep, and log-probabilities within them."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.llm.sampler.protocol import Drawing

LIKELY = 128
"""Tokens that top-p looks at first: mostly the set is among them, and the rest need not be sorted."""
FEW = 2048
"""Tokens of a vocabulary that is sorted as a whole."""
DIGITS = 11, 10, 10
"""The bits of a number in float32, less its sign, as they are searched."""
BELOW_ONE = 1 - 2**-22
"""The largest uniform number that is used: times a sum in float32 it stays below the sum."""


def drawn(
    logits: Tensor, uniform: Tensor, drawing: Drawing
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A token for each row, its log-probability [n] within what was kept, and that set [n, V], None for everything.

    With temperature 0 the token is the most probable one, and log-probabilities are those at temperature 1. Where
    logits are not finite, the log-probability is NaN, and the token any.

    Args:
        logits: [n, V].
        uniform: [n], in [0, 1): the token is where the distribution function of the kept tokens, in their order,
            reaches it.
        drawing: how tokens are drawn.
    """
    logits = logits.float()
    if drawing.temperature not in (0.0, 1.0):
        logits = logits / drawing.temperature
    kept = None
    if drawing.cuts:
        kept = kept_tokens(logits, drawing)
        logits = logits.masked_fill(~kept, -torch.inf)
    logprob = logits.log_softmax(-1)
    if drawing.temperature == 0:
        token = logits.argmax(-1, keepdim=True)
    else:
        reached = logprob.exp().cumsum(-1)
        level = uniform.clamp(max=BELOW_ONE)[:, None] * reached[:, -1:]
        token = torch.searchsorted(reached, level, right=True)
        token = token.clamp(max=logits.shape[1] - 1)  # beyond, where they are NaN
    return token.squeeze(1), logprob.gather(1, token).squeeze(1), kept


def kept_tokens(logits: Tensor, drawing: Drawing) -> Tensor:
    """Which tokens can be drawn, bool [n, V]: first top-k, then top-p of what is left, then min-p of what is left.

    Tokens as probable as the last one of the top k, or of the top p, are kept as well; the most probable one always is.
    """
    kept = torch.ones_like(logits, dtype=torch.bool)
    if 0 < drawing.top_k < logits.shape[1]:
        least = logits.topk(drawing.top_k, dim=-1).values[:, -1:]
        kept &= logits >= least
    if drawing.top_p < 1:
        left = logits.masked_fill(~kept, -torch.inf) if drawing.top_k else logits
        probability = left.softmax(-1)
        kept &= probability >= _least_of_nucleus(probability, drawing.top_p)
    if drawing.min_p > 0:
        kept &= logits >= logits.amax(-1, keepdim=True) + log(drawing.min_p)
    return kept


def _least_of_nucleus(probability: Tensor, top_p: float) -> Tensor:
    """The smallest of the fewest most probable tokens that together have `top_p`: [n, 1].

    Holtzman et al. 2020, arXiv 1904.09751.
    """
    likely = _most_likely(probability)
    size = likely.shape[1]
    before = likely.cumsum(-1) - likely
    # The first token of all is kept, whatever top_p is.
    count = (before < top_p).sum(-1, keepdim=True).clamp(min=1)
    least = likely.gather(1, count - 1)
    if size < probability.shape[1]:
        beyond = ((count == size) & (before[:, -1:] + likely[:, -1:] < top_p)).squeeze(
            1
        )
        if bool(beyond.any()):
            least[beyond] = _searched(probability[beyond], top_p)
    return least


def _most_likely(probability: Tensor) -> Tensor:
    """The largest of each row in falling order, all of them where there are few: [n, m]."""
    size = probability.shape[1]
    if size <= FEW and probability.device.type == "cpu":
        # NumPy sorts such rows several times faster than torch.
        return torch.from_numpy(-np.sort(-probability.numpy(), axis=1))
    return probability.topk(min(LIKELY, size), dim=-1).values


def _searched(probability: Tensor, top_p: float) -> Tensor:
    """As `_least_of_nucleus`, without sorting.

    The bits of positive float32 numbers are ordered as the numbers are: masses by their leading bits tell which of
    those the smallest one has, and so on with the bits behind them.
    """
    bits = probability.view(torch.int32)
    known = torch.zeros_like(bits[:, :1])
    above = torch.zeros_like(probability[:, :1])
    rest, left = probability, 31
    for count in DIGITS:
        # Tokens whose leading bits are those that are known, by the next `count` ones.
        left -= count
        digit = ((bits >> left) & (2**count - 1)).long()
        mass = probability.new_zeros(len(bits), 2**count)
        mass.scatter_add_(1, digit, rest)
        # The mass of each digit and of those above it; the largest with which top_p is reached.
        reached = above + mass.flip(1).cumsum(1)
        rank = (reached < top_p).sum(1, keepdim=True).clamp(max=2**count - 1)
        found = 2**count - 1 - rank
        above = (reached - mass.flip(1)).gather(1, rank)
        known += found.int() << left
        rest = torch.where((bits >> left) == (known >> left), rest, 0.0)
    return known.view(torch.float32)
