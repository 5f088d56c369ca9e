"""Configurations: dataclasses from plain values and back, with the nearest names for mistakes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    Never,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from shoal.experiment.foreign import said_of, said_of_value
from shoal.run.origin import TABLE
from shoal.types import ConfigError, refuse_function

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

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
    names = names_of(options)
    for name in names_of(config):
        if name in names:
            raise ConfigError(
                f"{config.__module__}: {name} is a setting of the run, for every algorithm; take it out of "
                f"{config.__name__} (DEFAULTS can give it another default)"
            )
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            merged[name] = _over(merged.get(name), value)
    run, own = split(merged, options)
    built = build(config, own, known=tuple(names))
    return build(options, run), built


def _over(before: object, value: object) -> object:
    """A value over the one of a lower layer: of nested settings, those that are named."""
    if not isinstance(value, Mapping):
        return value
    named = cast("Mapping[str, object]", value)
    if is_dataclass(before):
        return {**shallow(before), **named}
    if isinstance(before, Mapping):
        return {**cast("Mapping[str, object]", before), **named}
    return named


OUTDATED: dict[str, str] = {
    "shaping": "preprocessing",
    "normalise_obs": "normalize_obs",
    "anneal": "learning_rate_schedule",
}
"""Names that settings had once, and what each is called now."""

TABLES = ("algorithm", "env_kwargs")
"""Tables of a configuration file that are no settings of the run."""
UNSET = "unset"
"""The key of a configuration file that lists the settings that are None where their default is not."""

ELSEWHERE = {
    "seeds": "a run has one seed; for several, call it in a loop, "
    "`for seed in range(1, 4): shoal.train(..., seed=seed)`, or use `shoal train ... --seeds 3`",
}
"""Options of the command line that are no settings, and what is to be written instead."""

FIXED = {
    "normalize_obs": "bring observations to one scale in the environment, by fixed numbers, such as with Gymnasium's "
    "RescaleObservation",
}
"""What to do for settings that some networks do not have."""


def layers_of_file(
    saved: Mapping[str, Any], options: type[Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """A configuration file's settings of the run, those of its table [algorithm], and the environment's keywords.

    Raises:
        ConfigError: an unknown name, or one that is called otherwise or stands elsewhere now.
    """
    names = names_of(options)
    saved = {name: value for name, value in saved.items() if name != TABLE}
    saved = with_none(saved)
    own, rest = split(saved, options)
    unknown = sorted(set(rest) - set(TABLES))
    if unknown:
        _refuse_unknown(unknown, names)
    for name in TABLES:
        if not isinstance(rest.get(name, {}), Mapping):
            raise ConfigError(
                f"{name} must be a table, [{name}] with its settings below, got {rest[name]!r}"
            )
    table = dict(rest.get("algorithm", {}))
    misplaced = [name for name in table if name in names]
    if misplaced:
        raise ConfigError(
            f"{misplaced[0]} is a setting of the run now: move it out of the table [algorithm], to the top of the file"
        )
    return own, table, rest.get("env_kwargs")


def refuse_outdated(unknown: list[str]) -> None:
    """ConfigError for the first of these names, which nothing has, that something had once."""
    for name in unknown:
        if name in OUTDATED:
            raise ConfigError(f"{name} is called {OUTDATED[name]} now")


def build(
    kind: type[ConfigT],
    values: Mapping[str, object],
    *,
    base: ConfigT | None = None,
    known: tuple[str, ...] = (),
) -> ConfigT:
    """A config dataclass from plain values, nested ones from dicts.

    Args:
        kind: the dataclass.
        values: what differs from `base`, or from the class's own defaults.
        base: a config to start from.
        known: other names that a misspelt one may have meant.

    Raises:
        ConfigError: an unknown name (with the nearest ones), or a value of another type.
    """
    names, hints = names_of(kind), get_type_hints(kind)
    named = getattr(kind, "with_names", None)  # of what is known by a name alone
    values = values if named is None else named(values)
    converted = {} if base is None else shallow(base)
    for name, value in values.items():
        if name not in names:
            refuse_outdated([name])
            what = lacks(kind, name) or _meant(name, (*names, *known))
            raise ConfigError(f"no setting {name!r}; {what}")
        hint = hints[name]
        if is_dataclass(hint) and isinstance(value, Mapping):
            inside = cast("Mapping[str, object]", value)
            nested = cast("type[object]", hint)
            under = converted.get(name, _default_of(kind, name))
            converted[name] = build(nested, inside, base=under)
        else:
            refuse_function(name, value, names)
            if there := said_of_value(name, value):
                raise ConfigError(there)
            converted[name] = convert(name, value, hint)
    return kind(**converted)


def _refuse_unknown(unknown: list[str], names: Collection[str]) -> Never:
    """ConfigError for keys of a configuration file, `unknown`, that are none of its settings' `names`."""
    refuse_outdated(unknown)
    near = get_close_matches(unknown[0], names, n=3)
    meant = f"; did you mean {near}?" if near else "."
    if unknown[0] in ELSEWHERE:
        meant = f"; {ELSEWHERE[unknown[0]]}."
    raise ConfigError(
        f"unknown keys {unknown} at the top of the configuration{meant} "
        "The algorithm's own settings stand in the table [algorithm]"
    )


def lacks(kind: type[Any], name: str) -> str:
    """What to do where a network has a setting for good that others let be chosen; empty where it has not."""
    fixed = name in FIXED and name in vars(kind) and name not in names_of(kind)
    return f"this network has none: {FIXED[name]}" if fixed else ""


def _default_of(kind: type[object], name: str) -> object:
    """What a nested setting is where nobody says anything of it; it need not be what its own class has."""
    for field in fields(cast("Any", kind)):
        if field.name == name and field.default_factory is not MISSING:
            return field.default_factory()
    return None


def _meant(name: str, known: Collection[str]) -> str:
    """What a name that is no setting may have meant, or where settings are listed."""
    if there := said_of(name):
        return there
    near = get_close_matches(name, known, n=3)
    if near:
        return f"did you mean {', '.join(near)}?"
    return "`shoal train --help` lists them"


class Scalar(NamedTuple):
    """What a plain setting may be given as, and how a message calls it."""

    accepts: type[object] | tuple[type[object], ...]
    called: str


SCALARS: dict[type[object], Scalar] = {
    bool: Scalar((bool, np.bool_), "true or false"),
    int: Scalar(Integral, "a whole number"),
    float: Scalar(Real, "a number"),
    str: Scalar((str, os.PathLike), "a string"),
}


def convert(name: str, value: object, hint: object) -> object:
    """`value` as the type `hint`; ConfigError when it is something else."""
    origin, kinds = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _either(name, value, kinds)
    if origin is Literal:
        if value not in kinds:
            said = ", ".join(map(str, kinds))
            raise ConfigError(f"{name} must be one of {said}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} must be a list, got {value!r}")
        parts = cast("list[object]", value)
        return tuple(convert(name, part, kinds[0]) for part in parts)
    if isinstance(hint, type) and hint in SCALARS:
        return _scalar(name, value, hint)
    if hint is Any:
        return value
    if isinstance(hint, type) and not isinstance(value, hint):
        raise ConfigError(f"{name} must be {hint.__name__}, got {value!r}")
    return value


def _either(name: str, value: object, kinds: tuple[object, ...]) -> object:
    """`value` as the first of several types that takes it."""
    if value is None and NoneType in kinds:
        return None
    *others, last = [kind for kind in kinds if kind is not NoneType]
    for kind in others:
        try:
            return convert(name, value, kind)
        except ConfigError:  # the next one may take it
            continue
    return convert(name, value, last)


def _scalar(name: str, value: object, kind: type[object]) -> object:
    scalar = SCALARS[kind]
    fits = isinstance(value, scalar.accepts)
    if isinstance(value, bool) and kind is not bool:
        fits = False  # Python counts it as a number
    if kind is int and isinstance(value, float | np.floating):
        fits = value.is_integer()  # 1e6, say
    if not fits or value != value:
        raise ConfigError(f"{name} must be {scalar.called}, got {value!r}")
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    make = cast("Callable[[object], object]", kind)
    made = make(value)
    if isinstance(made, int) and not -(2**63) <= made < 2**63:
        raise ConfigError(f"{name} must lie within 64 bits, got {value!r}")
    return made


def names_of(kind: type[object]) -> list[str]:
    """The names of a dataclass's fields."""
    return [field.name for field in fields(cast("Any", kind))]


def shallow(config: object) -> dict[str, Any]:
    """The fields of a config, nested ones as they are."""
    return {name: getattr(config, name) for name in names_of(type(config))}


def whole_tree(config: object) -> dict[str, Any]:
    """The fields of a config, nested ones as mappings; nothing is copied, as functions may hold anything."""
    found = shallow(config)
    for name, value in found.items():
        if is_dataclass(value) and not isinstance(value, type):
            found[name] = whole_tree(value)
    return found


def split(
    settings: Mapping[str, Any], kind: type[object]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that are fields of `kind`, and the others."""
    names = names_of(kind)
    own: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in settings.items():
        chosen = own if name in names else others
        chosen[name] = value
    return own, others


def unset_in(part: object, lower: object = None, path: str = "") -> list[str]:
    """The settings that are None where a file that omits them would be read as something else, by dotted names.

    Args:
        part: a dataclass of settings, or a mapping.
        lower: the values that a file is read over, where they are not the dataclass's own defaults.
        path: what the names start with.

    Raises:
        ConfigError: such a value lies under a key with a dot.
    """
    below, default_none = _items(lower), set[str]()
    if is_dataclass(part):
        default_none = {field.name for field in fields(part) if field.default is None}
    found: list[str] = []
    for name, value in _items(part).items():
        inside: list[str] = []
        if value is not None:
            inside = unset_in(value, below.get(name), f"{path}{name}.")
        elif name not in default_none or below.get(name) is not None:
            inside = [f"{path}{name}"]
        if inside and "." in name:
            raise ConfigError(
                f"config.toml cannot hold None under a key with a dot: {inside[0]}"
            )
        found += inside
    return found


def _items(part: object) -> dict[str, object]:
    """The fields of a dataclass or the items of a mapping; none of anything else."""
    if isinstance(part, Mapping):
        named = cast("Mapping[object, object]", part)
        return {str(name): value for name, value in named.items()}
    return shallow(part) if is_dataclass(part) and not isinstance(part, type) else {}


def with_none(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with None for what its list `unset` names.

    Raises:
        ConfigError: no list of names, or a name that the file also gives a value, or that lies in no table.
    """
    whole = dict(saved)
    names = whole.pop(UNSET, [])
    if not isinstance(names, list):
        raise ConfigError(f"{UNSET} must be a list of names, got {names!r}")
    for name in cast("list[object]", names):
        if not isinstance(name, str):
            raise ConfigError(f"{UNSET} must hold names, got {name!r}")
        *tables, last = name.split(".")
        table = whole
        for part in tables:
            inner = table.get(part, {})
            if not isinstance(inner, Mapping):
                raise ConfigError(f"{UNSET} has {name!r}, but {part} is no table")
            table[part] = dict(cast("Mapping[str, Any]", inner))
            table = table[part]
        if table.get(last) is not None:
            raise ConfigError(f"{name} has a value and is in the list {UNSET} as well")
        table[last] = None
    return whole


def name_of_function(function: Callable[..., object]) -> str:
    """`package.module:function`; of what no module has under a name, one with < and >."""
    kind = type(function)
    name = getattr(function, "__qualname__", f"<{kind.__qualname__}>")
    return f"{getattr(function, '__module__', kind.__module__)}:{name}"


def without_none(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings as TOML holds them: no nulls, lists for tuples, functions by their names."""
    kept: dict[str, object] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            kept[name] = without_none(cast("Mapping[str, object]", value))
        elif callable(value):
            kept[name] = name_of_function(value)
        elif isinstance(value, tuple | list):
            kept[name] = _listed(cast("tuple[object, ...]", value))
        elif value is not None:
            kept[name] = value
    return kept


def flat(settings: Mapping[str, object], at: str = "") -> dict[str, object]:
    """Settings, nested ones under dotted names that begin with `at`."""
    found: dict[str, object] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(cast("Mapping[str, object]", value), f"{at}{name}.")
        else:
            found[f"{at}{name}"] = value
    return found


def _listed(parts: tuple[object, ...]) -> list[object]:
    """The parts as a list, those that are tuples as lists too."""
    listed: list[object] = []
    for part in parts:
        if isinstance(part, Mapping):
            table = cast("Mapping[str, object]", part)
            listed.append({key: _listed((x,))[0] for key, x in table.items()})
        elif isinstance(part, tuple | list):
            listed.append(_listed(cast("tuple[object, ...]", part)))
        else:
            listed.append(part)
    return listed
