"""Names of tasks: which they are is known before anything is imported."""

from __future__ import annotations

REASONING, FILE, ARENA = "reasoning-gym:", "jsonl:", "textarena:"
EXAMPLE = f"{REASONING}chain_sum"
"""A task that messages name."""


def is_task_name(source: object) -> bool:
    """Whether a source is the name of a task: `reasoning-gym:NAME`, `jsonl:PATH` or `textarena:GAME`.

    `package.module:function` may as well name an environment; which one is meant, the algorithm knows.
    """
    return isinstance(source, str) and source.startswith((REASONING, FILE, ARENA))
