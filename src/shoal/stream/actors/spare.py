"""A process that is to become an actor: it has imported what actors need, and waits to be told what it is."""

from __future__ import annotations

import os

from shoal.envs.workers.processes import Worker
from shoal.stream.actors.messages import WORD


class Spare:
    """One process, and the memory that it will share. Nothing that it starts outlives `end`, or this process."""

    def __init__(self, number: int = 0, rows: slice = slice(0, 1)) -> None:
        """Starts it; nobody waits until it is there.

        Args:
            number: which actor it is to be; `become` may change it.
            rows: which ones of the run it is to have.
        """
        self.fd = os.memfd_create("shoal-actor")
        try:
            self.worker = Worker(
                number, rows, self.fd, work="shoal.stream.actors.local", word=WORD
            )
        except BaseException:
            os.close(self.fd)
            raise

    def become(self, number: int, rows: slice) -> None:
        """It is this actor from now on."""
        self.worker.number, self.worker.rows = number, rows

    def end(self) -> None:
        """Kills the process and all that it started; may be called twice."""
        self.worker.end()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
