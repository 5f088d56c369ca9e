"""Attention of a language model's decode step in native code, on arrays of a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal import _native

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GRAIN = 16
"""Sizes of heads and the capacity of a cache are multiples of it."""


def decode_attention(
    qkv: NDArray[np.float32],
    norm: NDArray[np.float32] | None,
    eps: float,
    turns: NDArray[np.float32],
    position: NDArray[np.int64],
    key: NDArray[np.float32],
    value: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """What the next token of each answer sees of those before it; its keys and values join the cache.

    softmax(q k / sqrt(size)) v over the positions up to its own. Queries and keys are turned by their position, and
    before that divided by their root mean square and multiplied by `norm`, where there is one. A row's result does not
    depend on other rows.

    Args:
        qkv: [n, heads + 2 kv_heads, size], queries, keys and values of the tokens, rotary pairs side by side.
        norm: [heads + kv_heads, size], or None.
        eps: added to the mean square.
        turns: [capacity, 2, size], the cosines of each position's angles, then their sines: -sin, sin for each pair.
        position: of each token [n].
        key: [slots, kv_heads, capacity, size]; row i's are in slot i.
        value: the same.
        out: [n, heads, size].

    Raises:
        ValueError: an array of another shape or type, or a position outside the cache.
    """
    _native.decode_attention(qkv, norm, eps, turns, position, key, value, out)
