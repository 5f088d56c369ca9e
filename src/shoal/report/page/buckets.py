"""Buckets: a curve of many points as the lowest and the highest of each equal part, so that no peak is lost."""

from __future__ import annotations

import numpy as np

from shoal.types import Floats

MOST_LEVEL = 40


def level_of(points: int, width: int) -> int:
    """The level at which `points` become at most `width` buckets of 2**level points each."""
    level = 0
    while points > width << level and level < MOST_LEVEL:
        level += 1
    return level


def bucketed(x: Floats, y: Floats, level: int, since: int = 0) -> Floats:
    """The curve from bucket `since` on: [m, 2] of x and y, in their order.

    A bucket of level 0 is a point; each of a higher level is its lowest and its highest point. Buckets begin at
    multiples of their size, so that those that are full never change.

    Args:
        x: [n], the places.
        y: [n], the values there.
        level: 2**level points make a bucket.
        since: buckets before it are left out.
    """
    size = 1 << level
    x, y = x[since * size :], y[since * size :]
    if level == 0 or not len(y):
        return np.stack([x, y], 1)
    full = len(y) // size * size
    places = [_ends(y[:full].reshape(-1, size), size, 0)]
    if full < len(y):
        places.append(_ends(y[None, full:], size, full))
    kept = np.concatenate(places)
    return np.stack([x[kept], y[kept]], 1)


def _ends(
    parts: Floats, size: int, begin: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The places of the lowest and the highest value of each part [k, size], in the order of places."""
    both = np.stack([parts.argmin(1), parts.argmax(1)], 1)
    both.sort(1)
    first = begin + size * np.arange(len(parts))
    return (both + first[:, None]).reshape(-1)
