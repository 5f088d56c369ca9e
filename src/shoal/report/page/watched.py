"""The runs that a page shows: found anew as they come and go, and read in one thread while somebody looks."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

from shoal.report.facts import Facts, Processors, facts_of, find_named
from shoal.report.page.lanes import lanes
from shoal.run.directory import RunDirectory
from shoal.run.following import Follower
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_RUNS = 100
"""Runs that are listed: of more, the newest."""
READ_AHEAD = 10
"""Runs, the newest, that are read before anybody asks."""
SEARCH_S = 5.0
"""Seconds between two searches for new runs."""
POLL_S = 0.25
FACTS_S = 0.5
"""Seconds for which facts hold."""
LOOKED_S = 15.0
"""Seconds after which a run that nobody looked at is read no further."""
FIRST_WAIT_S = 2.0
"""Seconds that a request waits for the first reading."""


@dataclass(slots=True)
class Watched:
    """A run on the page."""

    number: int
    """Its name in requests."""
    run: RunDirectory
    name: str
    follower: Follower
    processors: Processors = field(default_factory=Processors)
    looked_s: float = 0.0
    ready: Event = field(default_factory=Event)
    problem: str = ""
    """Why its metrics cannot be read."""
    _facts: tuple[float, Facts] | None = None
    _lanes: tuple[int, dict[str, Any]] | None = None

    def facts(self) -> Facts:
        """Where it stands, of at most FACTS_S ago."""
        now = time.monotonic()
        if self._facts is None or now - self._facts[0] > FACTS_S:
            read = self.follower if self.ready.is_set() else None
            found = facts_of(self.run, read, self.processors)
            if self.problem:
                found.problems.append(self.problem)
            self._facts = now, found
        return self._facts[1]

    def forget(self) -> None:
        """Has the facts read anew: they have just been changed."""
        self._facts = None

    def lanes(self) -> dict[str, Any]:
        """Its timeline; read again where the file has changed. ConfigError: there is none, or it is damaged."""
        about = self.run.timeline.lstat() if self.has_timeline() else None
        stamp = 0 if about is None else about.st_mtime_ns
        if self._lanes is None or self._lanes[0] != stamp:
            self._lanes = stamp, lanes(self.run.timeline)
        return self._lanes[1]

    def has_timeline(self) -> bool:
        """Whether there is a file of that name, read or not."""
        return os.path.lexists(self.run.timeline)

    def read(self) -> bool:
        """Reads what was added to its metrics; whether there is more to read at once."""
        more = False
        try:
            more = self.follower.poll()
            self.problem = ""
        except (ConfigError, OSError) as error:
            self.problem = printable(error, 400)
        if not self.ready.is_set():
            self.ready.set()
            self._facts = None
        return more


class Runs:
    """All runs below what was asked for. Any thread may call any method."""

    def __init__(self, asked: Sequence[str], root: Path) -> None:
        """Finds the runs and begins to read the newest.

        Args:
            asked: runs, names of runs, or folders of runs.
            root: where they are searched for as well.

        Raises:
            ConfigError: one of them is not there.
        """
        self._asked, self._root = tuple(asked), root
        self._lock = Lock()
        self._by_path: dict[Path, Watched] = {}
        self._numbers = count(1)
        self.left_out = 0
        """Older runs that are not listed."""
        self._searched_s = time.monotonic()
        self._closing, self._wake = Event(), Event()
        self._take([found for name in self._asked for found in find_named(name, root)])
        for watched in self.listed()[-READ_AHEAD:]:
            watched.looked_s = self._searched_s
        self._thread = Thread(target=self._read, name="shoal-page-reader", daemon=True)
        self._thread.start()

    def listed(self) -> list[Watched]:
        """The runs, oldest first; those that were deleted stay."""
        with self._lock:
            return list(self._by_path.values())

    def one(self, number: object) -> Watched:
        """The run of a number; ConfigError where it is not listed."""
        for watched in self.listed():
            if watched.number == number and not isinstance(number, bool):
                return watched
        raise ConfigError("there is no such run on this page; load it again")

    def look(self, numbers: set[int]) -> list[Watched]:
        """The runs of these numbers, whose metrics are read from now on; waits for their first reading."""
        found = [watched for watched in self.listed() if watched.number in numbers]
        now = time.monotonic()
        for watched in found:
            watched.looked_s = now
        self._wake.set()
        until = now + FIRST_WAIT_S
        for watched in found:
            watched.ready.wait(max(0.0, until - time.monotonic()))
        return found

    def close(self) -> None:
        """Ends the reading."""
        self._closing.set()
        self._wake.set()
        self._thread.join(5.0)

    def _read(self) -> None:
        while not self._closing.is_set():
            now = time.monotonic()
            if now - self._searched_s > SEARCH_S:
                self._searched_s = now
                self._search()
            active = [one for one in self.listed() if now - one.looked_s < LOOKED_S]
            # All of them are glanced at before one is read as a whole.
            more = [one for one in active if not self._closing.is_set() and one.read()]
            for one in more:
                if not self._closing.is_set():
                    one.read()
            self._wake.wait(0.0 if more else POLL_S)
            self._wake.clear()

    def _search(self) -> None:
        found: list[tuple[RunDirectory, Path]] = []
        for name in self._asked:
            try:
                found += find_named(name, self._root)
            except (ConfigError, OSError):  # it was deleted, and may come again
                continue
        self._take(found)

    def _take(self, found: list[tuple[RunDirectory, Path]]) -> None:
        by_path = {run.path.absolute(): (run, short) for run, short in found}
        newest = list(by_path.items())[-MOST_RUNS:]
        with self._lock:
            self.left_out = len(by_path) - len(newest)
            for path, (run, short) in newest:
                if path not in self._by_path:
                    name = printable(short, 120)
                    follower = Follower(run.metrics)
                    number = next(self._numbers)
                    self._by_path[path] = Watched(number, run, name, follower)
            for path in list(self._by_path)[:-MOST_RUNS]:
                del self._by_path[path]
