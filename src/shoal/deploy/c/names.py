"""Names and types of C for the leaves of observations and actions; what comes from elsewhere never ends a comment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from shoal.types import Layout, Leaf

TYPES = {
    "float32": "float",
    "float64": "double",
    "bool": "uint8_t",
    **{f"int{bits}": f"int{bits}_t" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"uint{bits}_t" for bits in (8, 16, 32, 64)},
}
KEYWORDS = frozenset(
    (
        *("auto", "break", "case", "char", "const", "continue", "default", "do"),
        *("double", "else", "enum", "extern", "float", "for", "goto", "if", "inline"),
        *("int", "long", "register", "restrict", "return", "short", "signed"),
        *("sizeof", "static", "struct", "switch", "typedef", "union", "unsigned"),
        *("void", "volatile", "while"),
    )
)
MOST_NAME = 40


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


def fields_of(layout: Layout) -> list[str]:
    """A name for each leaf of a nested layout; [] where there is one plain array."""
    if is_plain(layout):
        return []
    taken: list[str] = []
    for leaf in layout.leaves:
        words = [re.sub(r"[^A-Za-z0-9]+", "_", str(key)) for key in leaf.path]
        name = "_".join(words).strip("_")[:MOST_NAME]
        if not name or name[0].isdigit() or name in KEYWORDS:
            name = f"part_{name}"
        while name in taken:
            name = f"{name}_{len(taken)}"
        taken.append(name)
    return taken


def is_plain(layout: Layout) -> bool:
    """Whether it is one array that no tree holds."""
    return len(layout.leaves) == 1 and not layout.leaves[0].path


def comment(text: object) -> str:
    """A text as it may stand in a C comment or string: one line of plain characters."""
    kept = printable(text, 200).encode("ascii", "replace").decode()
    return re.sub(r'[*\\"?]', "_", kept)
