"""What a setting takes: its type, and whether a value is possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.experiment.experiment import Experiment


def hint_of(base: Experiment, name: str) -> object:
    """The type of a setting with a dotted name that is there; Any where that says nothing."""
    first, *rest = name.split(".")
    options = get_type_hints(type(base.options))
    hints = options if first in options else get_type_hints(type(base.config))
    hint: object = hints[first]
    for part in rest:
        if not (isinstance(hint, type) and is_dataclass(hint)):
            return Any
        hint = get_type_hints(hint).get(part, Any)
    return hint


def parts_of(hint: object) -> tuple[object, ...]:
    """The types of a union, without None."""
    if get_origin(hint) in (Union, UnionType):
        found = tuple[object, ...]()
        for part in get_args(hint):
            found += parts_of(part)
        return found
    return () if hint is NoneType else (hint,)


def is_number(value: object = None, *, hint: object = None) -> bool:
    """Whether a value is a number, or a setting of this type can be."""
    if hint is not None:
        return bool({int, float} & set(filter(_is_plain, parts_of(hint))))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_plain(part: object) -> bool:
    return isinstance(part, type)


def is_whole(hint: object) -> bool:
    """Whether a setting is a whole number."""
    parts = parts_of(hint)
    return int in parts and float not in parts


def words_of(hint: object) -> tuple[object, ...]:
    """The words that a setting can be, or true and false; none where it is something else."""
    found = tuple[object, ...]()
    for part in parts_of(hint):
        if part is bool:
            found += (False, True)
        elif get_origin(part) is Literal:
            found += get_args(part)
    return found


def nested(values: Mapping[str, object]) -> dict[str, Any]:
    """Settings by dotted names as nested mappings."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        *tables, last = name.split(".")
        table = found
        for part in tables:
            table = table.setdefault(part, {})
        table[last] = value
    return found


def value_of(base: Experiment, name: str) -> object:
    """The value of a setting with a dotted name that is there."""
    first, *rest = name.split(".")
    has = base.options if hasattr(base.options, first) else base.config
    value: object = getattr(has, first)
    for part in rest:
        if isinstance(value, Mapping):
            value = cast("Mapping[str, object]", value)[part]
        else:
            value = getattr(value, part)
    return list(cast("tuple[object]", value)) if isinstance(value, tuple) else value


def accepts(base: Experiment, name: str, value: object) -> str:
    """Why a setting does not take a value; empty where it does."""
    try:
        base.changed(**nested({name: value}))
    except (ConfigError, TypeError) as error:
        return str(error)
    return ""
