"""Probabilities among the tokens that a sampler kept: top-k, top-p and min-p cut the rest off and renormalize.

Which tokens are kept depends on the weights that sampled. A learner that compares its own probabilities with the
sampler's must renormalize over the same set, or the ratio is that of two other distributions (DeepSeek-AI 2025, arXiv
2512.02556, section 3.1). N rows, V tokens of the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

LEAST_LOG = -1e4
"""Stands for -inf where a probability of 0 multiplies it."""


def kept_log_softmax(
    logits: Tensor, kept: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """The log of softmax(logits / temperature) among the kept tokens, -inf elsewhere, float32 [N, V].

    A row of which nothing was kept, as padding has, is left whole, so that no gradient is 0 / 0.

    Args:
        logits: [N, V].
        kept: bool [N, V]; None keeps all.
        temperature: what divides the logits, above 0.

    Raises:
        ValueError: `temperature` is not above 0.
    """
    assert logits.dim() == 2
    if not temperature > 0:
        raise ValueError(f"a temperature is above 0, got {temperature!r}")
    scaled = logits.float() if temperature == 1 else logits.float() / temperature
    if kept is not None:
        assert kept.shape == logits.shape
        cut = ~kept & kept.any(-1, keepdim=True)
        scaled = scaled.masked_fill(cut, -torch.inf)
    return scaled.log_softmax(-1)


def token_logprob(log_softmax: Tensor, token: Tensor) -> Tensor:
    """The log-probability of each row's token, [N]; -inf, without a gradient, for one that was not kept.

    Args:
        log_softmax: as `kept_log_softmax` gives it [N, V].
        token: integers [N].
    """
    assert token.shape == log_softmax.shape[:1]
    found = log_softmax.gather(1, token.long()[:, None])[:, 0]
    return torch.where(found > -torch.inf, found, -torch.inf)


def token_entropy(log_softmax: Tensor) -> Tensor:
    """-sum p log p of each row, in nats, [N]: of what was kept.

    Args:
        log_softmax: as `kept_log_softmax` gives it [N, V].
    """
    return -(log_softmax.exp() * log_softmax.clamp(min=LEAST_LOG)).sum(-1)


def kept_logprob(
    logits: Tensor,
    token: Tensor,
    kept: Tensor | None = None,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """The log-probability of each row's token among the kept ones, float32 [N]; see `kept_log_softmax`."""
    log_softmax = kept_log_softmax(logits, kept, temperature=temperature)
    return token_logprob(log_softmax, token)
