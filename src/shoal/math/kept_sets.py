"""Probabilities among the tokens that a sampler kept: top-k, top-p and min-p cut the rest off and renormalize.

Which tokens are kept depends on the weights that sampled. A learner that compares its own probabilities with the
sampler's must renormalize over the same set, or the ratio is that of two other distributions (DeepSeek-AI 2025, arXiv
2512.02556, section 3.1). N rows, V tokens of the vocabulary.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@torch.no_grad()
def kept_set(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Tensor:
    """The tokens that a sampler keeps, bool [N, V]: at least the likeliest one of each row.

    First those of at least min_p times the likeliest one's probability, among them the top_k likeliest, with all that
    are as likely as the last, and among them, renormalized, the fewest whose probabilities reach top_p.

    Args:
        logits: [N, V].
        temperature: what divides them, above 0.
        top_k: at least 1; None keeps all.
        top_p: above 0; 1 keeps all.
        min_p: from 0, which keeps all, to 1.

    Raises:
        ValueError: a setting lies outside.
    """
    scaled = _scale(logits, temperature)
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p lies above 0 and at most at 1, got {top_p!r}")
    if not 0 <= min_p <= 1:
        raise ValueError(f"min_p lies in 0 to 1, got {min_p!r}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k keeps at least 1 token, got {top_k!r}")
    if min_p > 0:
        least = scaled.amax(-1, keepdim=True) + log(min_p)
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    if top_k is not None and top_k < scaled.shape[-1]:
        least = scaled.topk(top_k).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    if top_p < 1:
        likeliest, order = scaled.sort(dim=-1, descending=True, stable=True)
        chance = likeliest.softmax(-1)
        enough = chance.cumsum(-1) - chance >= top_p
        over = torch.zeros_like(enough).scatter(1, order, enough)
        scaled = scaled.masked_fill(over, -torch.inf)
    return scaled > -torch.inf


def kept_logprob(
    logits: Tensor,
    token: Tensor,
    kept: Tensor | None = None,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """The log-probability of `token` under softmax(logits / temperature) among the kept tokens, float32 [N].

    -inf, without a gradient, for a token that was not kept. Gradients are finite, and 0 for what was not kept.

    Args:
        logits: [N, V].
        token: of each row, integers [N].
        kept: bool [N, V]; None keeps all.
        temperature: what divides the logits, above 0.

    Raises:
        ValueError: `temperature` is not above 0.
    """
    scaled = _scale(logits, temperature)
    assert token.shape == logits.shape[:1]
    at = token.long()[:, None]
    chosen = scaled.gather(1, at)
    if kept is None:
        return (chosen - scaled.logsumexp(-1, keepdim=True))[:, 0]
    assert kept.shape == logits.shape
    inside = kept.gather(1, at)
    # A row whose token was not kept is summed whole: there need not be any that was.
    counts = kept | ~inside
    scaled = scaled.masked_fill(~counts, -torch.inf)
    found = chosen - scaled.logsumexp(-1, keepdim=True)
    return torch.where(inside, found, torch.full_like(found, -torch.inf))[:, 0]


def kept_entropy(
    logits: Tensor, kept: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """-sum p log p, p = softmax(logits / temperature) among the kept tokens, in nats, float32 [N]; 0 without any.

    Args:
        logits: [N, V]; those of -inf are not kept.
        kept: bool [N, V]; None keeps all.
        temperature: what divides the logits, above 0.

    Raises:
        ValueError: `temperature` is not above 0.
    """
    scaled = _scale(logits, temperature)
    there = scaled > -torch.inf
    if kept is not None:
        assert kept.shape == logits.shape
        there = there & kept
    none = ~there.any(-1, keepdim=True)
    # Neither -inf nor an empty sum may stand where a gradient passes.
    scaled = torch.where(there, scaled, torch.zeros_like(scaled))
    total = scaled.masked_fill(~(there | none), -torch.inf).logsumexp(-1, keepdim=True)
    logprob = torch.where(there, scaled - total, torch.zeros_like(scaled))
    chance = torch.where(there, logprob.exp(), torch.zeros_like(scaled))
    return -(chance * logprob).sum(-1)


def _scale(logits: Tensor, temperature: float) -> Tensor:
    """The logits over the temperature, in float32."""
    assert logits.dim() == 2
    if not temperature > 0:
        raise ValueError(f"a temperature is above 0, got {temperature!r}")
    return logits.float() if temperature == 1 else logits.float() / temperature
