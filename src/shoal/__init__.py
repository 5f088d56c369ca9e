"""shoal: parallel reinforcement learning that keeps the hardware busy."""

from __future__ import annotations

import importlib
import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise ImportError("shoal runs on Linux and macOS; on Windows, use it inside WSL")

if TYPE_CHECKING:
    from shoal import run
    from shoal.check.check_env import check_env
    from shoal.deploy.policy_client import remote_policy
    from shoal.envs.action_guard.settings import ActionGuard
    from shoal.envs.headers import cmake_dir, get_include
    from shoal.envs.preprocessing import Preprocessing
    from shoal.envs.randomization import Choice, Curriculum, LogUniform, Normal, Uniform
    from shoal.experiment.agent import load
    from shoal.experiment.offline_score import evaluate_offline
    from shoal.experiment.staging import stages
    from shoal.experiment.sweep.sweep import sweep
    from shoal.experiment.training import resume, train
    from shoal.export.single_env import make_env
    from shoal.export.vector_env import make_vec
    from shoal.remote.server import serve
    from shoal.types import ConfigError, EnvError

__version__ = "0.1.0"
__all__ = [
    "check_env",
    "cmake_dir",
    "get_include",
    "evaluate_offline",
    "load",
    "make_env",
    "make_vec",
    "remote_policy",
    "resume",
    "run",
    "serve",
    "stages",
    "sweep",
    "train",
    "ActionGuard",
    "Preprocessing",
    "Uniform",
    "LogUniform",
    "Normal",
    "Choice",
    "Curriculum",
    "ConfigError",
    "EnvError",
]
_HOMES = {
    "check_env": "shoal.check.check_env",
    **dict.fromkeys(("cmake_dir", "get_include"), "shoal.envs.headers"),
    "evaluate_offline": "shoal.experiment.offline_score",
    "load": "shoal.experiment.agent",
    "make_env": "shoal.export.single_env",
    "make_vec": "shoal.export.vector_env",
    "remote_policy": "shoal.deploy.policy_client",
    "resume": "shoal.experiment.training",
    "serve": "shoal.remote.server",
    "stages": "shoal.experiment.staging",
    "sweep": "shoal.experiment.sweep.sweep",
    "train": "shoal.experiment.training",
    "ActionGuard": "shoal.envs.action_guard.settings",
    "Preprocessing": "shoal.envs.preprocessing",
    **dict.fromkeys(
        ("Uniform", "LogUniform", "Normal", "Choice", "Curriculum"),
        "shoal.envs.randomization",
    ),
    **dict.fromkeys(("ConfigError", "EnvError"), "shoal.types"),
}


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `import shoal` stays quick."""
    if name == "run":  # a package: `shoal.run.open()`
        return importlib.import_module("shoal.run")
    if name not in _HOMES:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}{_meant(name)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def _meant(name: str) -> str:
    """What a name may have meant that is not here: an algorithm, as other libraries have classes of them."""
    if name[:1].isupper():
        algos = importlib.import_module("shoal.algos").summaries()
        if name.lower() in algos:
            return f"; algorithms are named: shoal.train(env, algo={name.lower()!r})"
    near = get_close_matches(name, __all__, n=3)
    return f"; did you mean {', '.join(near)}?" if near else ""


def __dir__() -> list[str]:
    """What there is to use, imported or not yet; nothing that this file itself needs."""
    own = (name for name in globals() if name.startswith("__"))
    return sorted({*own, *__all__})
