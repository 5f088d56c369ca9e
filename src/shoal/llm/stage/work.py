"""What a stage does: pieces of work, of which one that fails takes none of the others with it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from shoal.types import text_of

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Failed:
    """Why nothing came of a piece of work."""

    text: str
    where: str = ""
    """The traceback, where there is one."""


class Work(Protocol):
    """Does pieces of work, in whichever process it was made."""

    @property
    def batch_size(self) -> int:
        """How many pieces it takes at once."""
        ...

    def work(self, pieces: Sequence[Any]) -> list[Any]:
        """What comes of each of them, or a Failed; it does not raise."""
        ...


def failed(error: BaseException) -> Failed:
    """A failure from an exception."""
    trace = "".join(traceback.format_exception(error)).rstrip()
    return Failed(f"{type(error).__name__}: {text_of(error)}", trace)
