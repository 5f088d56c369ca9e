"""Configurations: dataclasses from plain values and back, with the nearest names for mistakes."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any

from shoal.types import ConfigError


def build(kind: Any, values: dict[str, Any], *, known: tuple[str, ...] = ()) -> Any:
    """A config dataclass from plain values, nested ones from dicts; ConfigError names the nearest fields."""
    names = {f.name: f for f in fields(kind)}
    for name in values:
        if name not in names:
            near = get_close_matches(name, [*names, *known], n=3) or list(names)
            raise ConfigError(f"no setting {name!r}; did you mean {', '.join(near)}?")
    default = kind()
    converted: dict[str, Any] = {}
    for name, value in values.items():
        current = getattr(default, name)
        if is_dataclass(current) and isinstance(value, dict):
            converted[name] = replace(current, **build_values(current, value))  # pyright: ignore[reportArgumentType]
        else:
            converted[name] = tuple(value) if isinstance(value, list) else value
    return replace(default, **converted)


def build_values(current: Any, value: dict[str, Any]) -> dict[str, Any]:
    """The changed fields of a nested config, checked."""
    built = build(type(current), shallow(current) | value)
    return {f.name: getattr(built, f.name) for f in fields(built)}


def shallow(config: Any) -> dict[str, Any]:
    """The fields of a config, nested ones as they are."""
    return {f.name: getattr(config, f.name) for f in fields(config)}


def split(settings: dict[str, Any], kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that are fields of `kind`, and the others."""
    names = {f.name for f in fields(kind)}
    return {k: v for k, v in settings.items() if k in names}, {k: v for k, v in settings.items() if k not in names}


def without_none(value: Any) -> Any:
    """The value as TOML holds it: no nulls, lists for tuples."""
    if isinstance(value, dict):
        return {key: without_none(part) for key, part in value.items() if part is not None}
    return list(value) if isinstance(value, tuple) else value
