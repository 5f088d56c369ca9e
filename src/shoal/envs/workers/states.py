"""States of rows in several processes, joined into one of all rows and cut up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.outputs import take
from shoal.types import map_tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.types import Tree


def join(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of contiguous parts of the rows as one."""
    return {name: _joined([part[name] for part in parts]) for name in parts[0]}


def cut_up(state: Mapping[str, Any], rows: slice) -> dict[str, Any]:
    """The state of some of the rows."""
    part: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, list):
            part[name] = value[rows]
        else:
            part[name] = take(value, rows)
    return part


def _joined(parts: list[Tree]) -> Tree:
    """Lists one after the other; arrays, and trees of them, along their first axis."""
    if isinstance(parts[0], list):
        whole: list[Any] = []
        for part in parts:
            whole += part
        return whole

    def joined(*arrays: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate(arrays)

    return map_tree(joined, parts[0], *parts[1:])
