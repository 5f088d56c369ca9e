"""Trees of plain values and arrays as JSON, and back; what holds the arrays is the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

MARKS = ("__array__", "__pairs__", "__tuple__", "__pieces__")
"""Keys of JSON that stand for something else."""


def encode(
    value: object, at: str, leaf: Callable[[Any, str], Any], *, holder: str
) -> Any:
    """A tree as JSON holds it.

    Args:
        value: nested dicts, lists and tuples of numbers, strings and None, and of what `leaf` takes.
        at: where it stands.
        leaf: gives the JSON of a value that is none of these, such as an array, and None for any other one; it is
            asked first.
        holder: what the JSON is for, in messages.

    Raises:
        TypeError: it holds something else; the message names where.
    """
    found = leaf(value, at)
    if found is not None:
        return found
    match value:
        case dict():
            return _encode_dict(value, at, leaf, holder)
        case list() | tuple():
            parts = [
                encode(part, f"{at}.{i}", leaf, holder=holder)
                for i, part in enumerate(value)
            ]
            return {"__tuple__": parts} if isinstance(value, tuple) else parts
        case np.bool_() | np.integer() | np.floating() if value.dtype.itemsize <= 8:
            return value.item()
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise TypeError(f"{holder} cannot hold {type(value).__name__} at {at!r}")


def _encode_dict(
    value: dict[Any, object], at: str, leaf: Callable[[Any, str], Any], holder: str
) -> dict[str, Any]:
    if all(isinstance(key, str) and key not in MARKS for key in value):
        return {
            key: encode(part, f"{at}.{key}", leaf, holder=holder)
            for key, part in value.items()
        }
    pairs: list[list[Any]] = []
    for key, part in value.items():
        if not isinstance(key, None | bool | int | float | str):
            raise TypeError(f"{holder} cannot hold the key {key!r} at {at!r}")
        pairs.append([key, encode(part, f"{at}.{key}", leaf, holder=holder)])
    return {"__pairs__": pairs}


def decode(value: Any, leaf: Callable[[dict[str, Any]], Any]) -> Any:
    """The tree that `encode` made JSON of.

    Args:
        value: the JSON.
        leaf: what stands for a dict of JSON that holds one of its marks, such as an array; None for any other one.
    """
    match value:
        case {"__pairs__": pairs}:
            return {key: decode(part, leaf) for key, part in pairs}
        case {"__tuple__": parts}:
            return tuple(decode(part, leaf) for part in parts)
        case dict():
            found = leaf(value)
            if found is not None:
                return found
            return {key: decode(part, leaf) for key, part in value.items()}
        case list():
            return [decode(part, leaf) for part in value]
        case _:
            return value
