"""Calls: whether a user's function takes what it is called with."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


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
