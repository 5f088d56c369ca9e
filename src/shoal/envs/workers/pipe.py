"""What goes over the pipe between a parent and its own child: nothing else in shoal is pickled, but in their arena."""

from __future__ import annotations

from typing import Any

import cloudpickle  # pyright: ignore[reportMissingTypeStubs]


def pack(value: Any) -> bytes:
    """The value as bytes; functions and classes of a script or a notebook go by value."""
    packed: bytes = cloudpickle.dumps(value)
    return packed


def unpack(packed: bytes) -> Any:
    """The inverse of `pack`."""
    return cloudpickle.loads(packed)
