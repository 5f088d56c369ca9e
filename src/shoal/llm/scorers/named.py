"""Scorers that are given as functions, by the names under which other processes, and a resumed run, import them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from math import isfinite
from numbers import Real
from typing import Any, cast

from shoal.types import ConfigError

WHY = (
    "processes that judge and a resumed run import scorers by name: move it to the top level of a module, such as "
    "my_rewards.py beside this file, and import it from there"
)


def scorer_names(setting: str, given: object) -> object:
    """A list of scorers with names for the functions among them, `package.module:function=WEIGHT` for pairs.

    Args:
        setting: what the list is called.
        given: names, functions of a prompt and an answer, and pairs of either with a weight. What is no list is given
            back for others to refuse.

    Raises:
        ConfigError: a function that no module has under its name, or a weight that is no finite number.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        return given
    parts = list(cast("Iterable[Any]", given))
    return tuple(_name_of_part(setting, part) for part in parts)


def scorer_name(setting: str, given: object) -> object:
    """The name of a scorer: of a function `package.module:function`; what is none is given back.

    Raises:
        ConfigError: no module has it under its name.
    """
    if isinstance(given, type) or not callable(given):
        return given
    function: Any = given
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__qualname__", "")
    if not name:
        raise ConfigError(
            f"{setting}: a {type(function).__name__} has no name to be imported by; write 'my_rewards:NAME' for one "
            "that stands at the top level of my_rewards.py"
        )
    where = sys.modules.get(module)
    known = getattr(where, name, None) is function
    if module == "__main__":
        raise ConfigError(
            f"{setting}: {name} is defined in the program that runs (a script or a notebook); {WHY}"
        )
    if not known or getattr(where, "__spec__", None) is None:
        kind = "a lambda" if "<lambda>" in name else f"{module}:{name}"
        raise ConfigError(
            f"{setting}: {kind} is not at the top level of a module under its name; {WHY}"
        )
    return f"{module}:{name}"


def _name_of_part(setting: str, part: object) -> object:
    """A scorer's name with its weight, where it has one."""
    if not isinstance(part, tuple | list):
        return scorer_name(setting, part)
    pair = cast("tuple[Any, ...]", tuple(part))
    number: Any = pair[1] if len(pair) == 2 else None
    if not isinstance(number, Real) or not isfinite(float(number)):
        raise ConfigError(
            f"{setting}: {part!r:.200} is no pair of a scorer and a finite weight, such as (my_rewards.short, 0.5)"
        )
    name = scorer_name(setting, pair[0])
    if not isinstance(name, str) or "=" in name:
        raise ConfigError(
            f"{setting}: {pair[0]!r:.200} in a pair is no scorer: a function, or its name without a weight of its own"
        )
    return f"{name}={float(number)!r}"
