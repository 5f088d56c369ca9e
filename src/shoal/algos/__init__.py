"""Algorithms: one file each, a frozen config and a loop, readable top to bottom."""

from __future__ import annotations

import ast
import importlib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.types import ConfigError

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

    from shoal.types import Spec


def summaries() -> dict[str, str]:
    """Each algorithm's name and the first sentence of its file, read without importing it (or torch)."""
    found: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem != "__init__":
            found[path.stem] = (
                ast.get_docstring(ast.parse(path.read_text())) or ""
            ).partition("\n")[0]
    return found


def load(name: str) -> ModuleType:
    """The module of an algorithm, with its `Config` and `train`; ConfigError for an unknown name."""
    names = list(summaries())
    if name not in names:
        near = get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise ConfigError(f"no algorithm {name!r}; did you mean {' or '.join(near)}?")
    return importlib.import_module(f"shoal.algos.{name}")


def defaults(module: ModuleType) -> dict[str, Any]:
    """The engine's settings that suit an algorithm."""
    return dict(getattr(module, "DEFAULTS", {}))


def make_policy(module: ModuleType, spec: Spec, cfg: Any, seed: int) -> nn.Module:
    """The policy of an algorithm: its own, or the default network with weights drawn from `seed`."""
    own = getattr(module, "make_policy", None)
    if own is not None:
        return own(spec, cfg, seed)
    from shoal.nets import policy

    network = getattr(cfg, "network", None) or policy.Network()
    return policy.make_policy(spec, network, seed)


def config_fields(module: Any) -> list[str]:
    """The names of the settings of an algorithm."""
    return list(module.Config.__dataclass_fields__)
