"""What is not finite among observations and rewards, and whose it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.types import EnvError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.types import Layout, Leaf, Spec, Tree


def check_finite(
    spec: Spec,
    rows: slice,
    obs: Tree,
    reward: NDArray[np.float64],
    lengths: NDArray[np.int64] | None = None,
) -> None:
    """EnvError naming the first row with a NaN or infinite observation or reward, and the step of its episode."""
    bad = not_finite(spec.observation, obs)
    if bad is not None:
        name, row, value = f"observation{bad[0].name}", bad[1], bad[2]
    elif np.count_nonzero(np.isfinite(reward)) != reward.size:
        row = int(np.argmin(np.isfinite(reward)))
        name, value = "reward", reward[row]
    else:
        return
    when = "" if lengths is None else f" at step {lengths[row]} of its episode"
    raise EnvError(
        f"{spec.env_id}: row {rows.start + row}{when} returned the {name} {value}; "
        "fix the environment, or clip there what may overflow"
    )


def not_finite(layout: Layout, tree: Tree) -> tuple[Leaf, int, NDArray[Any]] | None:
    """The first NaN or infinity among arrays [rows, ...]: its leaf, row and the row's values."""
    arrays = [tree] if tree.__class__ is np.ndarray else layout.flat(tree)
    for leaf, array in zip(layout.leaves, arrays, strict=True):
        if array.dtype.kind != "f":
            continue
        finite = np.isfinite(array)
        if np.count_nonzero(finite) != array.size:
            row = int(np.argmin(finite.reshape(len(array), -1).all(axis=1)))
            return leaf, row, array[row]
    return None
