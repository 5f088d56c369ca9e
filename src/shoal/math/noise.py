"""Noise that is a function of where it is used: the same however rows are put together, and after a resume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal import _native

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def uniform_noise(
    seed: int, stream: int, row: NDArray[np.int64], step: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1), one for each row [n]: Philox4x32-10 of (seed, stream, row, step).

    Equation: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

    Args:
        seed: of the run.
        stream: which sequence of noise; users of one seed take different ones.
        row: [n], whose noise.
        step: [n], which number of that row's sequence.
    """
    return _native.philox_uniform(seed, stream, row, step, 1)[:, 0]
