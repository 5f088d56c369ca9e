"""Tuned settings by algorithm and environment: one TOML file an algorithm, beside this one."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

from shoal.types import ConfigError


def presets(algo: str) -> dict[str, dict[str, Any]]:
    """All presets of an algorithm by name, in the order of its file; none where it has no file."""
    file = resources.files(__name__) / f"{algo}.toml"
    if not file.is_file():
        return {}
    return tomllib.loads(file.read_text(encoding="utf-8"))


def preset(algo: str, name: str | None, env: str) -> dict[str, Any]:
    """The settings under `name`, else those for the environment or its family (such as ALE/*); none for "none".

    Raises:
        ConfigError: there is no preset of that name.
    """
    known = presets(algo)
    if name == "none":
        return {}
    if name is not None:
        if name not in known:
            said = ", ".join(known) or "no preset"
            raise ConfigError(f"{algo} has no preset {name!r}; it has {said}, or none")
        return known[name]
    if env in known:
        return known[env]
    for family, settings in known.items():
        if family.endswith("*") and env.startswith(family[:-1]):
            return settings
    return {}
