"""How old tokens are, in versions of the weights that sampled them: masks and weights of any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def token_age(version: Tensor, now: int) -> Tensor:
    """max(0, now - version) elementwise: versions between sampling and learning.

    A sequence that was under way when weights changed has tokens of several ages. What nobody sampled has whatever age
    its version says: the mask of sampled tokens is to be applied too.
    """
    return (now - version).clamp(min=0)


def version_mask(version: Tensor, now: int, *, max_staleness: int) -> Tensor:
    """Whether a token is at most `max_staleness` versions old, bool of the shape of `version`.

    Args:
        version: integers of any shape.
        now: the version that learns.
        max_staleness: at least 0.

    Raises:
        ValueError: `max_staleness` is negative.
    """
    if max_staleness < 0:
        raise ValueError(f"max_staleness counts versions from 0, got {max_staleness!r}")
    return token_age(version, now) <= max_staleness


def version_weight(version: Tensor, now: int, *, decay: float) -> Tensor:
    """decay^age elementwise, float32: 1 for what the version that learns sampled.

    Args:
        version: integers of any shape.
        now: the version that learns.
        decay: what a token keeps of its weight with each version, above 0 and at most 1.

    Raises:
        ValueError: `decay` lies outside.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"a weight decays by 0 < decay <= 1, got {decay!r}")
    return decay ** token_age(version, now).float()
