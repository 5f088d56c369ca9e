"""A penalty for answers that come near the longest length, before they are cut off: a function of lengths [S]."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def overlong_penalty(length: Tensor, *, max_length: int, cache: int) -> Tensor:
    """0 up to max_length - cache, then falling evenly to -1 at max_length and beyond, float32 [S].

    To be added to the reward: a hard cut punishes a good answer as much as a bad one (Yu et al. 2025, arXiv
    2503.14476, eq. 13).

    Args:
        length: tokens of each answer [S].
        max_length: from where on the whole penalty is due.
        cache: over how many tokens it grows.

    Raises:
        ValueError: unless 0 < cache <= max_length.
    """
    if not 0 < cache <= max_length:
        raise ValueError(
            f"the penalty grows over 0 < cache <= max_length tokens, got cache = {cache!r} of {max_length!r}"
        )
    return ((max_length - cache - length.float()) / cache).clamp(-1, 0)
