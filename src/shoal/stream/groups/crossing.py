"""Weights on their way to a sampler in another process: memory that both map, for two versions at a time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shoal.memory.arena import Arena, nbytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shoal.memory.arena import Packed

REGIONS = 2
"""Versions that may be on their way."""
SPARE = 4096


class Crossing:
    """Regions that are written in turn, each when the other side has copied what was in it."""

    def __init__(self, weights: int) -> None:
        """For so many numbers in float32."""
        self.sizes = (weights * 4 + SPARE,) * REGIONS
        self.fd = os.memfd_create("shoal-sampler")
        os.ftruncate(self.fd, nbytes(self.sizes))
        self._arena = Arena(self.fd, self.sizes)
        self._sent = self._copied = 0

    @property
    def full(self) -> bool:
        """Whether no version may be written before one was copied."""
        return self._sent - self._copied >= REGIONS

    def write(self, flat: NDArray[np.float32]) -> Packed:
        """Puts a version there; what is sent so that the other side finds it."""
        packed = self._arena.write(flat, self._sent % REGIONS)
        self._sent += 1
        return packed

    def copied(self) -> None:
        """The other side has copied the oldest version."""
        self._copied += 1

    def begin_anew(self) -> None:
        """Another process is on the other side."""
        self._sent = self._copied = 0

    def close(self) -> None:
        """Lets the memory go."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
