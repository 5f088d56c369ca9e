"""Names and types of C for the leaves of observations and actions; what comes from elsewhere never ends a comment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from shoal.deploy.names import KEYWORDS, MOST_NAME
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from shoal.types import Leaf

TYPES = {
    "float32": "float",
    "float64": "double",
    "bool": "uint8_t",
    **{f"int{bits}": f"int{bits}_t" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"uint{bits}_t" for bits in (8, 16, 32, 64)},
}


def c_type(leaf: Leaf) -> str:
    """The type of a leaf's numbers.

    Raises:
        ConfigError: C99 has none.
    """
    name = str(np.dtype(leaf.dtype))
    if name not in TYPES:
        raise ConfigError(f"C99 has no type for the {name} of the leaf {leaf.name}")
    return TYPES[name]


def check_prefix(name: str) -> None:
    """ConfigError unless `name` can begin the names of C functions."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in KEYWORDS:
        raise ConfigError(
            f"name must be a C identifier, such as policy, got {printable(name, 60)!r}"
        )
    if len(name) > MOST_NAME:
        raise ConfigError(f"name may have {MOST_NAME} characters, got {len(name)}")


def comment(text: object) -> str:
    """A text as it may stand in a C comment or string: one line of plain characters."""
    kept = printable(text, 200).encode("ascii", "replace").decode()
    return re.sub(r'[*\\"?]', "_", kept)
