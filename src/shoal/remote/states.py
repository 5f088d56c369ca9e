"""States of rows on the wire: a tree of plain values as JSON, with its arrays behind it. Nothing is pickled."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import numpy as np

from shoal.remote.frames import MOST_BYTES
from shoal.types import ConfigError, values

HEADER = 8
"""Bytes of the number that says how long the JSON is."""
KINDS = "biuf"
ROOM = 1_024
"""Bytes of a message beside what it carries, at most."""


def pack(state: object, most_bytes: int | None = None) -> bytes:
    """The bytes of a state; TypeError names what cannot travel, ConfigError says that it is too large."""
    parts: list[bytes] = []
    forms: list[dict[str, Any]] = []

    def leaf(value: Any, at: str) -> Any:
        if not isinstance(value, np.ndarray):
            return None
        if value.dtype.kind not in KINDS:
            raise TypeError(
                f"a message cannot hold an array of {value.dtype} at {at!r}"
            )
        little = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        parts.append(little.tobytes())
        forms.append({"dtype": value.dtype.name, "shape": list(value.shape)})
        return {"__array__": len(forms) - 1}

    tree = values.encode(state, "state", leaf, holder="a message")
    text = json.dumps({"tree": tree, "arrays": forms}).encode()
    data = b"".join([len(text).to_bytes(HEADER, "little"), text, *parts])
    most_bytes = MOST_BYTES if most_bytes is None else most_bytes
    if len(data) + ROOM > most_bytes:
        raise ConfigError(
            f"the rows' state is {len(data):,} bytes, more than the {most_bytes:,} that a message may have; take fewer "
            "environments from each server"
        )
    return data


def unpack(data: bytes) -> Any:
    """The state that `pack` made bytes of; its arrays are copies.

    Raises:
        ConfigError: they are damaged; nothing is allocated beyond what came.
    """
    try:
        end = HEADER + int.from_bytes(data[:HEADER], "little")
        if len(data) < HEADER or end > len(data):
            raise ValueError(f"{len(data)} bytes end within the header")
        said = json.loads(data[HEADER:end])
        arrays: list[Any] = []
        for form in said["arrays"]:
            kind, shape = np.dtype(form["dtype"]), [int(n) for n in form["shape"]]
            size = prod(shape) * kind.itemsize
            if kind.kind not in KINDS or min(shape, default=0) < 0:
                raise ValueError(f"an array of {form}")
            if end + size > len(data):
                raise ValueError(f"{len(data)} bytes end within an array")
            array = np.frombuffer(data[end : end + size], kind.newbyteorder("<"))
            arrays.append(array.reshape(shape).astype(kind))
            end += size
        if end != len(data):
            raise ValueError(f"{len(data) - end} bytes too many")

        def leaf(value: dict[str, Any]) -> Any:
            return arrays[value["__array__"]] if "__array__" in value else None

        return values.decode(said["tree"], leaf)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise ConfigError(
            f"the message with the rows' state is damaged: {error}"
        ) from error
