"""Products with weights that are used many times, in native code, on arrays of a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from shoal import _native

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH = 32
"""Outputs whose weights lie side by side: there must be a multiple of it."""
Finish: TypeAlias = Literal["keep", "swish", "times", "plus"]


def in_panels(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights [out, in] in the order in which `panel_product` reads them: [out / WIDTH, in, WIDTH].

    Raises:
        ValueError: outputs are no multiple of WIDTH, or the array is of another type.
    """
    out, inputs = weight.shape
    panels = np.empty((out // WIDTH, inputs, WIDTH), np.float32)
    _native.pack_panels(weight, panels)
    return panels


def panel_product(
    x: NDArray[np.float32],
    panels: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    other: NDArray[np.float32] | None,
    finish: Finish,
    out: NDArray[np.float32],
) -> None:
    """finish(x w^T + b), on one thread. A row's bits do not depend on other rows, nor on how many there are.

    Args:
        x: [n, in].
        panels: w, as `in_panels` has it.
        bias: b [out], or None.
        other: [n, out], for times and plus.
        finish: keep; swish, y sigmoid(y); times or plus `other`.
        out: [n, out].

    Raises:
        ValueError: an array of another shape or type.
    """
    _native.panel_product(x, panels, bias, other, finish, out)
