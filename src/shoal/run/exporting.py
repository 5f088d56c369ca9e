"""Exporting: metrics go elsewhere in a thread beside training, which waits neither for a library nor for a network."""

from __future__ import annotations

import time
import warnings
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple, Protocol

from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOSE_S = 120.0
"""Seconds that the end of a run waits for what was not sent yet."""
MOST_WAITING = 20_000
"""Lines that wait; a run has about 500."""


class Sent(NamedTuple):
    """The numbers of one line."""

    step: int
    values: dict[str, float]
    written_s: float
    """When, in seconds since 1970."""


class Exporter(Protocol):
    """Somewhere else that metrics go. All of it is called in one thread, which is not the run's."""

    name: str

    def begin(self) -> None:
        """Imports, opens, connects."""
        ...

    def write(self, lines: Sequence[Sent]) -> None:
        """Takes the lines that were written since the last time, at least one."""
        ...

    def end(self) -> None:
        """Flushes and closes; called after `begin` alone."""
        ...


class Beside:
    """A sink of a log that has an exporter work in a thread of its own, from now on.

    Where the exporter fails, the run is told at its next line or at its end: by an error where the exporter `must`
    work, else by a warning, and the run goes on without it.
    """

    def __init__(self, exporter: Exporter, *, must: bool = False) -> None:
        """Begins; returns at once."""
        self._exporter, self._must = exporter, must
        self._lines: SimpleQueue[Sent | None] = SimpleQueue()
        self._error: BaseException | None = None
        self._failed = False
        self._left_out = 0
        self._thread = Thread(
            target=self._work, name=f"shoal-{exporter.name}", daemon=True
        )
        self._thread.start()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Hands the numbers of one line over."""
        self._tell()
        if self._failed:
            return
        if self._lines.qsize() >= MOST_WAITING:
            self._left_out += 1
            return
        self._lines.put(Sent(step, values, time.time()))

    def close(self) -> None:
        """Waits until everything is sent, for CLOSE_S at most."""
        self._lines.put(None)
        self._thread.join(CLOSE_S)
        late = self._thread.is_alive()
        self._tell()
        if late:
            self._left_out += self._lines.qsize()
        if late or self._left_out:
            warnings.warn(
                f"{self._exporter.name} is slow: {self._left_out:,} lines were not sent; metrics.jsonl has them",
                stacklevel=2,
            )

    def _work(self) -> None:
        try:
            self._exporter.begin()
            try:
                while lines := self._waiting():
                    self._exporter.write(lines)
            finally:
                self._exporter.end()
        except (Exception, SystemExit) as error:  # a library's own, whatever it is
            self._error = error
        finally:
            self._failed = True

    def _waiting(self) -> list[Sent]:
        """The lines that wait, at least one; none at the end."""
        first = self._lines.get()
        found: list[Sent] = []
        while first is not None:
            found.append(first)
            try:
                first = self._lines.get_nowait()
            except Empty:
                return found
        if found:
            self._lines.put(None)  # what comes after these is the end
        return found

    def _tell(self) -> None:
        """Tells the run once what went wrong."""
        error, self._error = self._error, None
        if error is None:
            return
        if self._must:
            raise error
        said = printable(f"{type(error).__name__}: {error}", 400)
        warnings.warn(
            f"{self._exporter.name} gets nothing more of this run, whose metrics.jsonl has every line ({said})",
            stacklevel=3,
        )
