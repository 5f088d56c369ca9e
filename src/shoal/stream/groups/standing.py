"""A sampler of a run that stands still: it draws nothing until that goes on."""

from __future__ import annotations

from typing import Protocol

from shoal.stream.groups.messages import Op


class Told(Protocol):
    """A sampler in another process."""

    def tell(self, op: Op) -> None:
        """Has it draw nothing for now, or draw again."""
        ...


class StandingSampler:
    """Tells it."""

    def __init__(self, sampler: Told) -> None:
        """It draws."""
        self._sampler = sampler

    def stand(self) -> None:
        """It draws nothing after the token that it is at."""
        self._sampler.tell(Op.PAUSE)

    def attend(self) -> None:
        """It draws nothing yet."""

    def go_on(self) -> None:
        """It draws again."""
        self._sampler.tell(Op.GO_ON)
