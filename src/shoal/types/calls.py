"""Calls: whether a function takes what it is called with, a user's own or one that users call."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from shoal.types.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

P = ParamSpec("P")
R = TypeVar("R")
Class = TypeVar("Class", bound=type)


def misfit(
    function: Callable[..., object], /, *args: object, **keywords: object
) -> str:
    """Why a function cannot be called so, as far as its signature is known; nothing where it can."""
    try:
        takes = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    try:
        takes.bind(*args, **keywords)
    except TypeError as error:
        return str(error)
    return ""


def worded(
    words: Mapping[str, str] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Has a public function refuse arguments that it does not have by a ConfigError in words, not by a TypeError.

    Args:
        words: what stands here for names that other libraries' functions take.
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters.values()
        named = [
            x.name
            for x in parameters
            if x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)
        ]
        known = frozenset(named)
        placed = [
            x.name
            for x in parameters
            if x.kind in (x.POSITIONAL_ONLY, x.POSITIONAL_OR_KEYWORD)
        ]
        most = len(placed)

        @wraps(function)
        def called(*args: P.args, **keywords: P.kwargs) -> R:
            if len(args) > most:
                raise ConfigError(_too_many(function.__name__, placed, named))
            if not keywords.keys() <= known:
                name = next(name for name in keywords if name not in known)
                raise ConfigError(_unknown(function.__name__, name, named, words or {}))
            return function(*args, **keywords)

        return called

    return wrap


def all_worded(
    words: Mapping[str, Mapping[str, str]],
) -> Callable[[Class], Class]:
    """`worded` for every public method of a class, its bases' too; `words` by the names of methods."""

    def wrap(kind: Class) -> Class:
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                setattr(kind, name, worded(words.get(name))(method))
        return kind

    return wrap


def _unknown(
    function: str, name: str, known: list[str], words: Mapping[str, str]
) -> str:
    own = [one for one in known if one != "self"]
    if name in words:
        hint = f"Stable-Baselines3's {name} is here: {words[name]}"
    elif near := get_close_matches(name, own, n=3):
        hint = f"did you mean {', '.join(near)}?"
    else:
        hint = f"it takes {', '.join(own) or 'none'}"
    return f"{function} has no argument {name!r}; {hint}"


def _too_many(function: str, placed: list[str], known: list[str]) -> str:
    first = [name for name in placed if name != "self"]
    rest = [f"{name}=..." for name in known if name not in placed]
    takes = ", ".join([*first, *rest]) or "nothing"
    return f"{function} was given more arguments than it has without their names; it takes {function}({takes})"
