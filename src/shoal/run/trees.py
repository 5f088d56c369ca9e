"""A tree of numbers, arrays and tensors as JSON and named arrays, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.memory.pieces import Pieces
from shoal.run.tensors import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MARKS = ("__array__", "__pairs__", "__tuple__", "__pieces__")


@dataclass(frozen=True, slots=True)
class Arrays:
    """The arrays of a tree by name, contiguous and little-endian."""

    held: dict[str, NDArray[Any]] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    """Names of those that are copies already, so that nobody else changes them."""
    pieces: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    """Of each `Pieces`, its arrays by their names."""

    def add(self, array: NDArray[Any], at: str, *, own: bool = False) -> str:
        """Adds one under the name `at`, or a free one like it; returns the name.

        Raises:
            TypeError: safetensors hold no such dtype.
        """
        while at in self.held or at == "__metadata__":
            at += "'"  # "a.b" may be one key or two; the other is the format's own
        self.held[at] = _plain(array, at)
        if own or not np.may_share_memory(self.held[at], array):
            self.own.add(at)
        return at

    def add_pieces(self, pieces: Pieces, at: str) -> str:
        """Adds one after the other under the name `at`, or a free one like it."""
        while at in self.pieces:
            at += "'"
        self.pieces[at] = {
            name: _plain(array, f"{at}.{name}") for name, array in pieces.arrays.items()
        }
        return at


def _plain(array: NDArray[Any], at: str) -> NDArray[Any]:
    if array.dtype.name not in DTYPES:
        raise TypeError(f"a checkpoint cannot hold an array of {array.dtype} at {at!r}")
    little = array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, little).reshape(array.shape)


def encode(value: object, at: str, arrays: Arrays) -> Any:
    """The tree as JSON holds it; its arrays go into `arrays`.

    Args:
        value: nested dicts, lists and tuples of numbers, strings, None, NumPy arrays,
            tensors and `Pieces`.
        at: where it stands: what the names of its arrays begin with.
        arrays: takes the arrays, which share the tree's memory where they can; those
            of a GPU are copied.

    Raises:
        TypeError: it holds something else; the message names where.
    """
    match value:
        case torch.Tensor():
            return _encode_tensor(value, at, arrays)
        case np.ndarray():
            return {"__array__": arrays.add(value, at), "torch": None}
        case Pieces():
            return {"__pieces__": arrays.add_pieces(value, at)}
        case dict():
            return _encode_dict(value, at, arrays)
        case list() | tuple():
            parts = [encode(part, f"{at}.{i}", arrays) for i, part in enumerate(value)]
            return {"__tuple__": parts} if isinstance(value, tuple) else parts
        case np.bool_() | np.integer() | np.floating() if value.dtype.name in DTYPES:
            return value.item()
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise TypeError(
                f"a checkpoint cannot hold {type(value).__name__} at {at!r}"
            )


def _encode_tensor(tensor: torch.Tensor, at: str, arrays: Arrays) -> dict[str, str]:
    here = tensor.detach().cpu()
    copied = here.device != tensor.device
    if not copied and torch.cuda.is_initialized() and here.is_pinned():
        here, copied = here.clone(), True  # a forked child lacks page-locked memory
    if here.dtype is torch.bfloat16:  # which NumPy lacks
        name = arrays.add(here.view(torch.int16).numpy(), at, own=copied)
        return {"__array__": name, "torch": "bfloat16"}
    return {
        "__array__": arrays.add(here.numpy(), at, own=copied),
        "torch": "as it is",
    }


def _encode_dict(value: dict[Any, object], at: str, arrays: Arrays) -> dict[str, Any]:
    if all(isinstance(key, str) and key not in MARKS for key in value):
        return {key: encode(part, f"{at}.{key}", arrays) for key, part in value.items()}
    pairs: list[list[Any]] = []
    for key, part in value.items():
        if not isinstance(key, None | bool | int | float | str):
            raise TypeError(f"a checkpoint cannot hold the key {key!r} at {at!r}")
        pairs.append([key, encode(part, f"{at}.{key}", arrays)])
    return {"__pairs__": pairs}


def decode(
    value: Any,
    arrays: Mapping[str, NDArray[Any]],
    pieces: Mapping[str, Mapping[str, NDArray[Any]]],
) -> Any:
    """The tree that `encode` made JSON of; it shares the arrays' memory.

    Raises:
        KeyError: it names an array that is not there.
    """
    match value:
        case {"__array__": at}:
            array = arrays[at]
            if value["torch"] is None:
                return array
            tensor = torch.from_numpy(array)
            return (
                tensor.view(torch.bfloat16) if value["torch"] == "bfloat16" else tensor
            )
        case {"__pieces__": at}:
            return Pieces(pieces[at])
        case {"__pairs__": pairs}:
            return {key: decode(part, arrays, pieces) for key, part in pairs}
        case {"__tuple__": parts}:
            return tuple(decode(part, arrays, pieces) for part in parts)
        case dict():
            return {key: decode(part, arrays, pieces) for key, part in value.items()}
        case list():
            return [decode(part, arrays, pieces) for part in value]
        case _:
            return value
