"""shoal: parallel reinforcement learning that keeps the hardware busy."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise ImportError("shoal runs on Linux and macOS; on Windows, use it inside WSL")

if TYPE_CHECKING:
    from shoal.envs.check import check_env
    from shoal.envs.randomise import Choice, Curriculum, LogUniform, Normal, Uniform
    from shoal.envs.shaping import Shaping
    from shoal.envs.vector import make_vec
    from shoal.launch import resume, train
    from shoal.loaded import load

__version__ = "0.1.0"
__all__ = [
    "check_env",
    "load",
    "make_vec",
    "resume",
    "train",
    "Shaping",
    "Uniform",
    "LogUniform",
    "Normal",
    "Choice",
    "Curriculum",
]
_HOMES = {
    "check_env": "shoal.envs.check",
    "load": "shoal.loaded",
    "make_vec": "shoal.envs.vector",
    "resume": "shoal.launch",
    "train": "shoal.launch",
    "Shaping": "shoal.envs.shaping",
    **dict.fromkeys(("Uniform", "LogUniform", "Normal", "Choice", "Curriculum"), "shoal.envs.randomise"),
}


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `import shoal` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
