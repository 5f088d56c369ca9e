"""What a user was told of an environment when its rows for training were made: those for evaluation say it no more."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

_TOLD: ContextVar[bool] = ContextVar("told", default=False)


@contextmanager
def told_before() -> Generator[None]:
    """While it lasts, environments that are made again are not warned of again."""
    token = _TOLD.set(True)
    try:
        yield
    finally:
        _TOLD.reset(token)


def is_told() -> bool:
    """Whether the user was warned of the environment before."""
    return _TOLD.get()
