"""Log-probabilities of chosen tokens, without the logits of all tokens in memory at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.checkpoint import checkpoint

from shoal.llm.blocks import block_product
from shoal.math.kept_sets import kept_log_softmax, token_entropy, token_logprob

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 2**22
"""Logits that are held at a time; more tokens than fit are computed again when the gradient is."""


def chosen_logprobs(
    hidden: Tensor,
    head: Tensor,
    token: Tensor,
    kept: Tensor | None,
    temperature: float = 1.0,
    *,
    exact: bool = False,
) -> tuple[Tensor, Tensor]:
    """The log-softmax of hidden head^T / temperature at each token, within what was kept, and the entropy, [M] each.

    Args:
        hidden: [M, hidden_size], the last hidden state before each token.
        head: [V, hidden_size].
        token: [M], int64.
        kept: bits of what could be drawn [M, ceil(V / 8)], uint8; None: everything.
        temperature: above 0.
        exact: whether rows have the same bits however many there are.
    """
    size = max(1, CHUNK // len(head))
    if len(token) <= size:
        return _logprobs(hidden, head, token, kept, temperature, exact)
    parts: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(token), size):
        part = slice(first, first + size)
        within = None if kept is None else kept[part]
        given = hidden[part], head, token[part], within, temperature, exact
        parts.append(checkpoint(_logprobs, *given, use_reentrant=False))
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _logprobs(
    hidden: Tensor,
    head: Tensor,
    token: Tensor,
    kept: Tensor | None,
    temperature: float,
    exact: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor]:
    within = None if kept is None else unpacked(kept, len(head))
    logits = block_product(hidden, head) if exact else hidden @ head.T
    log_softmax = kept_log_softmax(logits, within, temperature=temperature)
    with torch.no_grad():
        entropy = token_entropy(log_softmax)
    return token_logprob(log_softmax, token), entropy


def unpacked(bits: Tensor, size: int) -> Tensor:
    """Bits [M, ceil(size / 8)], lowest first, as bool [M, size]."""
    shifts = torch.arange(8, device=bits.device, dtype=torch.uint8)
    return ((bits[..., None] >> shifts) & 1).bool().flatten(-2)[..., :size]


def packed(kept: Tensor) -> Tensor:
    """What is kept, bool [M, size], as bits [M, ceil(size / 8)], lowest first."""
    rest = -kept.shape[-1] % 8
    whole = torch.nn.functional.pad(kept, (0, rest)).unflatten(-1, (-1, 8))
    shifts = torch.arange(8, device=kept.device, dtype=torch.uint8)
    return (whole.to(torch.uint8) << shifts).sum(-1, dtype=torch.uint8)
