"""What a user is told of an environment: once, by a warning, when its rows for training are made, or by check-env."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Generator


class Told(NamedTuple):
    """What check-env calls it, what was seen, and what to do."""

    check: str
    says: str
    advice: str


_TOLD: ContextVar[bool] = ContextVar("told", default=False)
_HEARD: ContextVar[list[Told] | None] = ContextVar("heard", default=None)


@contextmanager
def told_before() -> Generator[None]:
    """While it lasts, environments that are made again are not warned of again."""
    token = _TOLD.set(True)
    try:
        yield
    finally:
        _TOLD.reset(token)


@contextmanager
def hearing(heard: list[Told]) -> Generator[None]:
    """While it lasts, what the user is to be told is added to a list, and no warning is given."""
    token = _HEARD.set(heard)
    try:
        yield
    finally:
        _HEARD.reset(token)


def is_told() -> bool:
    """Whether the user was warned of the environment before."""
    return _TOLD.get()


def tell(check: str, says: str, advice: str) -> None:
    """UserWarning with what the user must know of an environment; who is `hearing` gets it instead."""
    if is_told():
        return
    heard = _HEARD.get()
    if heard is None:
        warnings.warn(f"{says}; {advice}", stacklevel=3)
    else:
        heard.append(Told(check, says, advice))
