"""Trees: an array, or dicts and tuples of arrays nested as a space is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    Axis = int | slice | NDArray[Any] | Tensor
    Index = Axis | tuple[Axis, ...]

Tree: TypeAlias = Any
"""An array, or dicts and tuples of arrays nested as the space is."""


def map_tree(function: Callable[..., Tree], tree: Tree, *others: Tree) -> Tree:
    """Applies `function` to each leaf of trees that have one structure."""
    if isinstance(tree, dict):
        mapped: dict[str, Tree] = {}
        for key, part in tree.items():
            mapped[key] = map_tree(function, part, *(other[key] for other in others))
        return mapped
    if isinstance(tree, tuple):
        branches = zip(tree, *others, strict=True)
        return tuple(map_tree(function, *parts) for parts in branches)
    return function(tree, *others)


def select(tree: Tree, at: Index) -> Tree:
    """`x[at]` of each leaf."""

    def pick(x: Tree) -> Tree:
        return x[at]

    return map_tree(pick, tree)


def assign(tree: Tree, at: Index, values: Tree) -> None:
    """`x[at] = value` in each leaf."""

    def put(x: Tree, value: Tree) -> None:
        x[at] = value

    map_tree(put, tree, values)
