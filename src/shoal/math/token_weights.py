"""What each token counts in a loss: weights [S, L] of a whole batch, of which a loss is the weighted sum.

S sequences of at most L tokens. A mean over a micro-batch depends on what happens to lie in it; a sum of tokens, whose
weights were made of the whole batch, does not: however sequences are split or packed, the gradients add up to the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

if TYPE_CHECKING:
    from torch import Tensor

Normalize: TypeAlias = Literal["sequence", "token", "constant"]


def token_weights(
    mask: Tensor,
    *,
    normalize: Normalize,
    max_length: int | None = None,
    truncated: Tensor | None = None,
    total: Tensor | None = None,
) -> Tensor:
    """The weight of each token [S, L], float32: 0 off the mask and in truncated sequences.

    "sequence": 1 / (S n), n tokens of its sequence: the mean of sequences' means, in which a token of a long answer
    counts less (Shao et al. 2024, arXiv 2402.03300, eq. 3). "token": 1 / N, N tokens of the batch (Yu et al. 2025,
    arXiv 2503.14476, eq. 12). "constant": 1 / (S max_length), for which a longer answer's tokens count as much, and
    another answer's length does not matter (Liu et al. 2025, arXiv 2503.20783, section 3.2).

    S counts truncated sequences too, N does not count their tokens.

    Args:
        mask: tokens that the policy sampled, bool [S, L].
        normalize: one of the three.
        max_length: the most tokens that a sequence may have; for "constant" only.
        truncated: sequences that were cut off at their longest and are to teach nothing, bool [S].
        total: how many sequences the whole batch has (its tokens for "token"), a scalar, where `mask` is of a part.

    Raises:
        ValueError: no such normalization, or `max_length` is missing.
    """
    assert mask.dim() == 2
    assert mask.dtype == torch.bool
    if truncated is not None:
        assert truncated.shape == mask.shape[:1]
        mask = mask & ~truncated[:, None]
    if normalize == "sequence":
        share = mask.sum(1, keepdim=True).clamp(min=1)
    elif normalize == "token":
        share = torch.ones_like(mask[:, :1], dtype=torch.float32)
    elif normalize == "constant":
        if max_length is None or max_length < 1:
            raise ValueError(
                f"the constant is max_length >= 1 tokens a sequence, got {max_length!r}"
            )
        share = torch.full_like(mask[:, :1], max_length, dtype=torch.float32)
    else:
        raise ValueError(
            f'normalize is "sequence", "token" or "constant", got {normalize!r}'
        )
    if total is None:
        total = mask.sum() if normalize == "token" else torch.tensor(len(mask))
    assert total.dim() == 0
    return mask.float() / (share * total.clamp(min=1))


def weighted_sum(token_loss: Tensor, weight: Tensor) -> Tensor:
    """Sum of w * loss over tokens, a scalar: what is 0 in weight may be infinite or not a number.

    Args:
        token_loss: of any shape.
        weight: of the same, without gradients.
    """
    assert token_loss.shape == weight.shape
    zero = torch.zeros_like(token_loss)
    return (torch.where(weight != 0, token_loss, zero) * weight).sum()
