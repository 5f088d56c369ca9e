"""Signs: memory in which ranks of one machine show each other that something goes on."""

from __future__ import annotations

import mmap
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from shoal.learn.ranks import LostError

if TYPE_CHECKING:
    from collections.abc import Generator

COUNT, WAITS = range(2)


class Signs:
    """Of each rank how far it is, and whether it waits for others; each writes its own, the first one reads them."""

    def __init__(self, file: int, size: int, rank: int = 0) -> None:
        """Maps them.

        Args:
            file: descriptor of the memory.
            size: how many ranks there are.
            rank: whose signs `count` and `waits` give.
        """
        self.file, self._rank = file, rank
        shape = (size, 2)
        os.ftruncate(file, 16 * size)
        self._memory = mmap.mmap(file, 16 * size)
        self._signs = np.frombuffer(self._memory, np.int64).reshape(shape)

    @classmethod
    @contextmanager
    def made(cls, size: int) -> Generator[Signs]:
        """New ones, without a name in any folder."""
        file = os.memfd_create("shoal-learners")
        try:
            yield cls(file, size)
        finally:
            os.close(file)

    def count(self) -> None:
        """This rank has done something."""
        self._signs[self._rank, COUNT] += 1

    def count_of(self, rank: int) -> int:
        """How far a rank is."""
        return int(self._signs[rank, COUNT])

    def waits_at(self, rank: int) -> bool:
        """Whether a rank waits for others."""
        return bool(self._signs[rank, WAITS])

    # What `Ranks` needs of whoever looks after the ranks: here the first one does.

    def waits(self, *, begun: bool) -> None:
        """This rank begins to wait for others, or is done."""
        self._signs[self._rank, WAITS] = begun
        self.count()

    def look(self) -> None:
        """The wait goes on for as long as the first rank lives: this process ends with it."""

    def lost(self, error: Exception) -> None:
        """A connection broke: whichever rank was at fault, the first one names it."""
        raise LostError(str(error)) from error
