"""Standing still: a run that somebody pauses waits where it is, and goes on as if no time had passed."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK_S = 0.1
"""Whoever stands still looks once in so many seconds whether it goes on."""


class Stands(Protocol):
    """Who is told when a run stands still: what steps elsewhere, and what shows the run."""

    def stand(self) -> None:
        """The run stands still from here on."""
        ...

    def attend(self) -> None:
        """It does so still; called a few times in a second."""
        ...

    def go_on(self) -> None:
        """It goes on."""
        ...


class Halt:
    """Whether a run is to stand still, and for how long it has.

    Any thread may ask. The one that trains calls `check` wherever it may stop for a while, which returns when the run
    is to go on; no bit depends on where that is.
    """

    def __init__(self) -> None:
        """It goes on."""
        self.asked = False
        """Whether it is to stand still."""
        self.parties: list[Stands] = []
        """Who is told, in this order; of going on in the reverse."""
        self.at_risk = False
        """Whether it has no checkpoint yet, so that one is to be written before it stands still."""
        self.stood_s = 0.0
        """Seconds in which it stood still, those that are over."""
        self._since_s = 0.0
        self._over = False
        self._changed = threading.Condition()

    @property
    def standing(self) -> bool:
        """Whether it stands still now."""
        return self._since_s > 0

    def ask(self) -> None:
        """Has it stand still, where it is not to end; from any thread."""
        with self._changed:
            self.asked = not self._over

    def release(self) -> None:
        """Has it go on; from any thread."""
        with self._changed:
            self.asked = False
            self._changed.notify_all()

    def end(self) -> None:
        """Has it go on and never stand still again: it is to end. May be called by the handler of a signal."""
        self._over, self.asked = True, False

    def check(self) -> None:
        """Returns when the run is to go on; of several threads the first one tells the others' parties."""
        if not self.asked or self._over:
            return
        if self.standing:
            self._wait()
            return
        self._since_s = time.perf_counter()
        parties = list(self.parties)
        try:
            for party in parties:
                party.stand()
            for _ in self._looks():
                for party in parties:
                    party.attend()
        finally:
            self.stood_s += time.perf_counter() - self._since_s
            self._since_s = 0.0
        for party in reversed(parties):
            party.go_on()

    def check_in_update(self) -> None:
        """As `check`, in the middle of an update, which nothing can save: not where the run would be lost."""
        if not self.at_risk:
            self.check()

    def clock(self) -> float:
        """The time in seconds, as `time.perf_counter`, which does not go on while the run stands still."""
        since_s = self._since_s
        now_s = since_s if since_s else time.perf_counter()
        return now_s - self.stood_s

    def leave(self, party: Stands) -> None:
        """Tells somebody nothing any more."""
        with suppress(ValueError):
            self.parties.remove(party)

    def _wait(self) -> None:
        for _ in self._looks():
            pass

    def _looks(self) -> Iterator[None]:
        """Once in a while, as long as it is to stand still."""
        while self.asked and not self._over:
            with self._changed:
                self._changed.wait_for(lambda: not self.asked, LOOK_S)
            yield
