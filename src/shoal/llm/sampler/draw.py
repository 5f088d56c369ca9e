"""Tokens drawn from logits: the sets that top-k, top-p and min-p keep, and log-probabilities within them."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.llm.sampler.protocol import Drawing

LIKELY = 128
"""Tokens that top-p looks at first: mostly the set is among them, and the rest need not be sorted."""
BELOW_ONE = 1 - 2**-22
"""The largest uniform number that is used: times a sum in float32 it stays below the sum."""


def drawn(
    logits: Tensor, uniform: Tensor, drawing: Drawing
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A token for each row, its log-probability [n] within what was kept, and that set [n, V], None for everything.

    With temperature 0 the token is the most probable one, and log-probabilities are those at temperature 1.

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
    return token.squeeze(1), logprob.gather(1, token).squeeze(1), kept


def kept_tokens(logits: Tensor, drawing: Drawing) -> Tensor:
    """Which tokens can be drawn, bool [n, V]: first top-k, then top-p of what is left, then min-p of what is left.

    Tokens as probable as the last of the top k are kept as well; the most probable one always is.
    """
    kept = torch.ones_like(logits, dtype=torch.bool)
    if 0 < drawing.top_k < logits.shape[1]:
        least = logits.topk(drawing.top_k, dim=-1).values[:, -1:]
        kept &= logits >= least
    if drawing.top_p < 1:
        left = logits.masked_fill(~kept, -torch.inf) if drawing.top_k else logits
        kept &= _nucleus(left.softmax(-1), drawing.top_p)
    if drawing.min_p > 0:
        kept &= logits >= logits.amax(-1, keepdim=True) + log(drawing.min_p)
    return kept


def _nucleus(probability: Tensor, top_p: float) -> Tensor:
    """The fewest most probable tokens that together have `top_p`, bool [n, V] (Holtzman et al. 2020, 1904.09751)."""
    size = min(LIKELY, probability.shape[1])
    while True:
        likely, token = probability.topk(size, dim=-1)
        before = likely.cumsum(-1) - likely
        if size == probability.shape[1] or bool((before[:, -1] >= top_p).all()):
            break
        size = min(8 * size, probability.shape[1])
    within = before < top_p
    within[:, 0] = True
    return torch.zeros_like(probability, dtype=torch.bool).scatter_(1, token, within)
