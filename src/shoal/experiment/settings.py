"""Configurations: dataclasses from plain values and back, with the nearest names for mistakes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from types import UnionType
from typing import (
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from shoal.types import ConfigError

OptionsT = TypeVar("OptionsT")
ConfigT = TypeVar("ConfigT")


def resolve(
    options: type[OptionsT], config: type[ConfigT], *layers: Mapping[str, Any]
) -> tuple[OptionsT, ConfigT]:
    """The run's options and the algorithm's settings, merged from layers of which a later one wins.

    The one place where settings are merged: the algorithm's defaults for the engine, a preset, a file, what was given.

    Args:
        options: the dataclass of the run's options.
        config: the dataclass of the algorithm's settings.
        layers: plain values by name, of either dataclass; nested settings may be mappings, which are merged too.

    Raises:
        ConfigError: an unknown name (with the nearest ones), a value of another type, or a name that both have.
    """
    run: dict[str, Any] = {}
    own: dict[str, Any] = {}
    names = {f.name for f in fields(cast("Any", options))}
    for field in fields(cast("Any", config)):
        if field.name in names:
            raise ConfigError(
                f"{config.__module__}: {field.name} is a setting of the run, for every algorithm; take it out of "
                f"{config.__name__} (DEFAULTS can give it another default)"
            )
    for layer in layers:
        for name, value in layer.items():
            merged = run if name in names else own
            before = merged.get(name)
            if isinstance(value, Mapping) and isinstance(before, Mapping):
                merged[name] = {**before, **value}
            else:
                merged[name] = value
    built = build(config, own, known=tuple(names))
    return build(options, run), built


OUTDATED: dict[str, str] = {"normalise_obs": "normalize_obs"}
"""Names that a configuration file may still have, and what each is called now."""


def layers_of_file(
    saved: Mapping[str, Any], options: type[Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """A configuration file's settings of the run, those of its table [algorithm], and the environment's keywords.

    Raises:
        ConfigError: an unknown name, or one that is called otherwise or stands elsewhere now.
    """
    refuse_outdated(saved, {f.name for f in fields(options)})
    own, rest = split(dict(saved), options)
    unknown = sorted(set(rest) - {"algorithm", "env_kwargs"})
    if unknown:
        near = get_close_matches(unknown[0], [f.name for f in fields(options)], n=3)
        raise ConfigError(
            f"unknown keys {unknown} in the configuration; did you mean {near}?"
        )
    table = dict(rest.get("algorithm", {}))
    misplaced = [name for name in table if name in {f.name for f in fields(options)}]
    if misplaced:
        raise ConfigError(
            f"{misplaced[0]} is a setting of the run now: move it out of the table [algorithm], to the top of the file"
        )
    return own, table, rest.get("env_kwargs")


def refuse_outdated(saved: Mapping[str, Any], known: set[str]) -> None:
    """ConfigError for the first outdated name in a configuration, however nested."""
    for name, value in saved.items():
        if name in OUTDATED and name not in known:
            raise ConfigError(f"{name} is called {OUTDATED[name]} now")
        if isinstance(value, Mapping) and name != "env_kwargs":
            refuse_outdated(value, known)


def build(
    kind: Any,
    values: Mapping[str, Any],
    *,
    base: Any = None,
    known: tuple[str, ...] = (),
) -> Any:
    """A config dataclass from plain values, nested ones from dicts.

    Args:
        kind: the dataclass.
        values: what differs from `base`, or from the class's own defaults.
        base: a config to start from.
        known: other names that a misspelt one may have meant.

    Raises:
        ConfigError: an unknown name (with the nearest ones), or a value of another type.
    """
    names, hints = {f.name: f for f in fields(kind)}, get_type_hints(kind)
    for name in values:
        if name not in names:
            near = get_close_matches(name, [*names, *known], n=3) or list(names)
            raise ConfigError(f"no setting {name!r}; did you mean {', '.join(near)}?")
    converted = shallow(base) if base is not None else {}
    for name, value in values.items():
        if is_dataclass(hints[name]) and isinstance(value, Mapping):
            converted[name] = build(hints[name], value, base=converted.get(name))
        else:
            converted[name] = convert(name, value, hints[name])
    return kind(**converted)


def convert(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type `hint`; ConfigError when it is something else."""
    kinds = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return (
            None
            if value is None and type(None) in kinds
            else convert(name, value, kinds[0])
        )
    if get_origin(hint) is Literal:
        if value not in kinds:
            raise ConfigError(
                f"{name} must be one of {', '.join(map(str, kinds))}, got {value!r}"
            )
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} must be a list, got {value!r}")
        return tuple(convert(name, part, kinds[0]) for part in value)
    if hint is str:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
    expected: dict[Any, tuple[Any, str]] = {
        bool: ((bool, np.bool_), "true or false"),
        int: (Integral, "a whole number"),
        float: (Real, "a number"),
        str: (str, "a string"),
    }
    fits, said = expected.get(
        hint,
        (
            object if not is_dataclass(hint) else hint,
            getattr(hint, "__name__", str(hint)),
        ),
    )
    wrong = (
        not isinstance(value, fits)
        or (hint in (int, float) and isinstance(value, bool))
        or value != value
    )
    if wrong:
        raise ConfigError(f"{name} must be {said}, got {value!r}")
    kind: Any = hint
    return kind(value) if kind in expected else value


def shallow(config: Any) -> dict[str, Any]:
    """The fields of a config, nested ones as they are."""
    return {f.name: getattr(config, f.name) for f in fields(config)}


def split(settings: dict[str, Any], kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that are fields of `kind`, and the others."""
    names = {f.name for f in fields(kind)}
    return {k: v for k, v in settings.items() if k in names}, {
        k: v for k, v in settings.items() if k not in names
    }


def without_none(value: Any) -> Any:
    """The value as TOML holds it: no nulls, lists for tuples."""
    if isinstance(value, dict):
        return {
            key: without_none(part) for key, part in value.items() if part is not None
        }
    return list(value) if isinstance(value, tuple) else value
