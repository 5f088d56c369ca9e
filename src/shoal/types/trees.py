"""Trees: an array, or dicts and tuples of arrays nested as a space is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Tree: TypeAlias = Any
"""An array, or dicts and tuples of arrays nested as the space is."""


def map_tree(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Applies `function` to each leaf of trees that have one structure."""
    if isinstance(tree, dict):
        return {
            key: map_tree(function, part, *(other[key] for other in others))
            for key, part in tree.items()
        }
    if isinstance(tree, tuple):
        return tuple(
            map_tree(function, *parts) for parts in zip(tree, *others, strict=True)
        )
    return function(tree, *others)


def select(tree: Tree, at: Any) -> Tree:
    """`x[at]` of each leaf."""

    def pick(x: Any) -> Any:
        return x[at]

    return map_tree(pick, tree)


def assign(tree: Tree, at: Any, values: Tree) -> None:
    """`x[at] = value` in each leaf."""

    def put(x: Any, value: Any) -> None:
        x[at] = value

    map_tree(put, tree, values)
