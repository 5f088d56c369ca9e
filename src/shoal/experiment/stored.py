"""Keywords of an environment as config.toml holds them: each comes back as it was, or is refused before training."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import tomli_w

from shoal.envs.randomization import as_text
from shoal.experiment.settings import with_none, without_none
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

TUPLES = "tuples"
"""The key of a configuration file that lists the keywords, or parts of them, that are tuples: TOML has lists only."""
ENV_KWARGS = "env_kwargs"


def with_env_kwargs(
    settings: Mapping[str, object], env_kwargs: Mapping[str, Any]
) -> dict[str, object]:
    """Settings for config.toml with the environment's keywords, and what names the tuples among them.

    Raises:
        ConfigError: a keyword that would not come back as it is.
    """
    texts = as_text(dict(env_kwargs))
    whole: dict[str, object] = {**settings, ENV_KWARGS: texts}
    _check_keys(texts, ENV_KWARGS)
    if tuples := sorted(_tuples_in(texts, ENV_KWARGS)):
        whole[TUPLES] = tuples
    try:
        text = tomli_w.dumps(without_none(whole))
        text.encode()
        back = with_tuples(with_none(tomllib.loads(text))).get(ENV_KWARGS, {})
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"config.toml cannot hold these keywords of the environment: {error}; give objects in a callable"
        ) from error
    where = _difference(texts, back, ENV_KWARGS)
    if where:
        raise ConfigError(
            f"{where}, so a resumed run would have another environment; give objects in a callable"
        )
    return whole


def with_tuples(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with tuples for what its list `tuples` names.

    Raises:
        ConfigError: no list of names, or a name of something else than a list below env_kwargs.
    """
    whole = dict(saved)
    names = whole.pop(TUPLES, [])
    if not isinstance(names, list):
        raise ConfigError(f"{TUPLES} must be a list of names, got {names!r}")
    # What lies inside comes first: a tuple cannot be changed.
    for name in sorted(cast("list[object]", names), key=str, reverse=True):
        if not isinstance(name, str) or not name.startswith(f"{ENV_KWARGS}."):
            raise ConfigError(
                f"{TUPLES} must hold names below env_kwargs, got {name!r}"
            )
        whole[ENV_KWARGS] = _as_tuple(whole.get(ENV_KWARGS), name.split(".")[1:], name)
    return whole


def _as_tuple(value: object, path: list[str], name: str) -> object:
    """`value` with a tuple for the list at `path`."""
    if not path:
        if not isinstance(value, list):
            raise ConfigError(f"{TUPLES} has {name!r}, which is no list")
        return tuple(cast("list[object]", value))
    key, *rest = path
    if isinstance(value, Mapping) and key in value:
        table = dict(cast("Mapping[str, object]", value))
        table[key] = _as_tuple(table[key], rest, name)
        return table
    if isinstance(value, list) and key.isdecimal():
        parts = list(cast("list[object]", value))
        if int(key) < len(parts):
            parts[int(key)] = _as_tuple(parts[int(key)], rest, name)
            return parts
    raise ConfigError(f"{TUPLES} has {name!r}, which is not there")


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """The items of a mapping, or the elements of a list or tuple by their numbers."""
    if isinstance(value, Mapping):
        yield from cast("Mapping[str, object]", value).items()
    elif isinstance(value, list | tuple):
        for number, part in enumerate(cast("list[object]", value)):
            yield str(number), part


def _tuples_in(value: object, path: str) -> Iterator[str]:
    """The tuples in a value, by dotted names."""
    for key, part in _parts(value):
        inside = f"{path}.{key}"
        if isinstance(part, tuple):
            yield inside
        yield from _tuples_in(part, inside)


def _check_keys(value: object, path: str) -> None:
    """ConfigError for keys that a dotted name cannot say."""
    for key, part in _parts(value):
        if not isinstance(cast("object", key), str):
            raise ConfigError(
                f"config.toml cannot hold {path}: its key {key!r} is no string; give objects in a callable"
            )
        if "." in key and any(True for _ in _tuples_in({key: part}, path)):
            raise ConfigError(
                f"config.toml cannot hold a tuple under a key with a dot: {path}.{key}"
            )
        _check_keys(part, f"{path}.{key}")


def _difference(before: object, after: object, path: str) -> str:
    """Where a value differs from what it came back as, and how; empty where it does not."""
    if isinstance(before, Mapping | list | tuple):
        ours, theirs = dict(_parts(before)), dict(_parts(after))
        same_kind = isinstance(before, Mapping) or type(before) is type(after)
        if same_kind and ours.keys() == theirs.keys():
            found = (
                _difference(x, theirs[key], f"{path}.{key}") for key, x in ours.items()
            )
            return next(filter(None, found), "")
    else:
        plain = float(before) if isinstance(before, np.float64) else before
        if type(plain) is type(after) and repr(plain) == repr(after):
            return ""
    return f"config.toml would hold {path} = {before!r} as {after!r}"
