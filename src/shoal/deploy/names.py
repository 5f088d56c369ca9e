"""Names for the leaves of nested observations and actions, as programming languages and graphs take them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.types import Layout

KEYWORDS = frozenset(
    (
        *("auto", "break", "case", "char", "const", "continue", "default", "do"),
        *("double", "else", "enum", "extern", "float", "for", "goto", "if", "inline"),
        *("int", "long", "register", "restrict", "return", "short", "signed"),
        *("sizeof", "static", "struct", "switch", "typedef", "union", "unsigned"),
        *("void", "volatile", "while"),
    )
)
"""Of C; a leaf of such a name gets another one."""
MOST_NAME = 40


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
