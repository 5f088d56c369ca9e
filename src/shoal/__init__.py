"""shoal: parallel reinforcement learning that keeps the hardware busy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.launch import resume, train

__version__ = "0.1.0"
__all__ = ["resume", "train"]
_HOMES = {"train": "shoal.launch", "resume": "shoal.launch"}


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `import shoal` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
