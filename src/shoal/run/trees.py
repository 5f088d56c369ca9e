"""A tree of numbers, arrays and tensors as JSON and named arrays, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.memory.pieces import Pieces
from shoal.run.tensors import DTYPES
from shoal.types import values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


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

    def leaf(part: Any, where: str) -> Any:
        match part:
            case torch.Tensor():
                return _encode_tensor(part, where, arrays)
            case np.ndarray():
                return {"__array__": arrays.add(part, where), "torch": None}
            case Pieces():
                return {"__pieces__": arrays.add_pieces(part, where)}
            case _:
                return None

    return values.encode(value, at, leaf, holder="a checkpoint")


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


def decode(
    value: Any,
    arrays: Mapping[str, NDArray[Any]],
    pieces: Mapping[str, Mapping[str, NDArray[Any]]],
) -> Any:
    """The tree that `encode` made JSON of; it shares the arrays' memory.

    Raises:
        KeyError: it names an array that is not there.
    """

    def leaf(part: dict[str, Any]) -> Any:
        match part:
            case {"__array__": at}:
                return _decode_array(arrays[at], part["torch"])
            case {"__pieces__": at}:
                return Pieces(pieces[at])
            case _:
                return None

    return values.decode(value, leaf)


def _decode_array(array: NDArray[Any], kind: str | None) -> Any:
    if kind is None:
        return array
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if kind == "bfloat16" else tensor
