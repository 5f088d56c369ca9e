"""Files of tensors in the safetensors format, written and read without a second copy."""

from __future__ import annotations

import hashlib
import json
import os
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from shoal.run.reading import open_regular, parse_json
from shoal.types.room import free_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

DTYPES = {
    "bool": "BOOL",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
"""NumPy's name of each type that the format holds, and the format's."""
HEADER_BYTES = 16 << 20
MOST_AXES = 32
NUMPY = {code: np.dtype(name).newbyteorder("<") for name, code in DTYPES.items()}


def buffers_of(arrays: Mapping[str, NDArray[Any]]) -> list[Bytes]:
    """The bytes of a file of these arrays, in order; the arrays' memory is shared.

    Eight bytes with the length of the header (little-endian), the header as JSON (name
    -> dtype, shape, offsets), then the arrays, which are contiguous and little-endian
    (https://huggingface.co/docs/safetensors).
    """
    table: dict[str, Any] = {}
    offset = 0
    for name, array in arrays.items():
        end = offset + array.nbytes
        table[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    begin = len(header).to_bytes(8, "little") + header
    shown = (array.reshape(-1).view(np.uint8) for array in arrays.values())
    return [np.frombuffer(begin, np.uint8), *shown]


def sha256_of(buffers: Iterable[Bytes]) -> str:
    """The sha256 of buffers that follow each other."""
    digest = hashlib.sha256()
    for buffer in buffers:
        digest.update(buffer.data)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """The sha256 of a file, of which a small part is held at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path, *, size: int, sha256: str) -> dict[str, NDArray[Any]]:
    """The arrays of a file, each read into memory of its own.

    Raises:
        ValueError: it is no file, of another size or sha256, or does not hold what its header says; nothing of it
            was believed.
        OSError: it cannot be read, or is not there.
        MemoryError: it is larger than the memory that is free.
    """
    with open_regular(path, at_most=None) as file:
        found = os.fstat(file.fileno()).st_size
        if found != size:
            raise ValueError(f"{path.name} has {found} bytes, expected {size}")
        free = free_bytes()
        if free is not None and size > free:
            raise MemoryError(f"{path.name} has {size:,} bytes, {free:,} are free")
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, HEADER_BYTES):
            raise ValueError(f"{path.name} has no header")
        table = _table(parse_json(file.read(length)), size - 8 - length)
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ValueError(f"the sha256 of {path.name} differs")
        arrays: dict[str, NDArray[Any]] = {}
        for name, (dtype, shape, begin) in table.items():
            array = np.empty(shape, dtype)
            file.seek(8 + length + begin)
            buffer = array.reshape(-1).view(np.uint8)
            if file.readinto(buffer.data) != array.nbytes:
                raise ValueError(f"{path.name} ends within {name!r}")
            arrays[name] = array
        return arrays


def _table(
    header: object, size: int
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...], int]]:
    """Type, shape and beginning of each array, which follow each other in `size` bytes; ValueError where not."""
    table: dict[str, tuple[np.dtype[Any], tuple[int, ...], int]] = {}
    end = 0
    for name, said in cast("dict[str, dict[str, Any]]", header).items():
        dtype, shape = NUMPY[said["dtype"]], tuple(said["shape"])
        if len(shape) > MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{name!r} has the shape {shape}")
        if said["data_offsets"] != [end, end + prod(shape) * dtype.itemsize]:
            raise ValueError(f"{name!r} does not lie where its shape says")
        table[name] = dtype, shape, end
        end += prod(shape) * dtype.itemsize
    if end != size:
        raise ValueError(f"its arrays take {end} of {size} bytes")
    return table
