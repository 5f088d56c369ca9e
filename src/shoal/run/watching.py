"""Watching: a run notices the files by which a person pauses or stops it, and its status says so."""

from __future__ import annotations

import time
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

from shoal.run.callbacks import tell
from shoal.run.control import (
    PAUSE,
    PAUSED,
    STOP,
    asked_by,
    begun,
    starting_since,
    withdraw,
)
from shoal.run.interrupts import INTERRUPTED, STOPPED
from shoal.stream.ending import EndingError
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoal.run.loop import Loop
    from shoal.run.run import Run

LOOK_S = 0.2
"""The files are looked for once in so many seconds."""


def interrupt(run: Run, by: str, reason: str = INTERRUPTED) -> None:
    """Ends a run as soon as it can be gone on with later: with a checkpoint of what is under way."""
    run.stop_reason = run.stop_reason or reason
    run.interrupted_by = by
    ranks = run.settings.ranks
    # Several learners end after the same update, but where the first one alone collects what they learn from.
    if ranks is None or (ranks.led and ranks.rank == 0):
        run.meter.ending.begin()
    run.meter.halt.end()


def stand_still(loop: Loop) -> None:
    """Stands still between two batches or steps, where the run is to.

    Before its first checkpoint it writes one, which changes no bit: what is paused may be killed. Several learners do
    not, as all of them would have to stand at the same place.
    """
    halt = loop.run.meter.halt
    if halt.asked and halt.at_risk:
        loop.save(may_be_best=False)
    halt.check()


def next_batch(loop: Loop) -> Any:
    """The stream's next batch; EndingError where the run is to end.

    A pause before the first checkpoint leaves a rollout in the middle, as an end does; it is gone on with here.
    """
    while True:
        try:
            batch = next(loop.stream)
            loop.progress.note(batch)
            return batch
        except EndingError:
            if loop.run.meter.ending.asked:
                raise
            stand_still(loop)


class Watching:
    """A thread that looks for the files while a loop lasts, and the status that they come to.

    The thread that trains stands still (`Halt.check`); this one only tells it to.
    """

    def __init__(self, run: Run, status: Callable[[], dict[str, Any]]) -> None:
        """`status`: where the run stands."""
        self._run, self._status = run, status
        self._folder = None if run.directory is None else run.directory.path
        self._ended = Event()
        self._thread: Thread | None = None
        self._writing = Lock()
        self._stuck: set[str] = set()
        """Files that cannot be deleted, which was said."""
        self._paused: dict[str, Any] = {}
        """What the status says beside while the run stands still."""
        self._refused: set[Path] = set()
        self._by = ""

    def start(self) -> None:
        """Begins to look. A wish to stop from before the run began to start is over; one to pause is not."""
        if self._folder is None:
            return
        ranks = self._run.settings.ranks
        if self._run.settings.leads:
            if not self._is_meant(self._folder / STOP):
                self._clear(STOP)
            begun(self._folder)
            self._run.meter.halt.parties.append(self)
            if ranks is not None:  # another one may stand still before this one does
                ranks.meanwhile = self._stand_here
        self._look()
        name = "shoal-watches-for-a-pause"
        self._thread = Thread(target=self._watch, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Looks no more; calling it again does nothing. A run that has ended is not paused any more."""
        self._ended.set()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.join()
        self._run.meter.halt.leave(self)
        if self._run.settings.leads:
            self._clear(STOP)
            if self._run.stop_reason:  # it has ended, and did not fail
                self._clear(PAUSE)

    def write(self, status: dict[str, Any] | None = None) -> None:
        """Writes where the run stands, or stood, and whether it stands still now; from any thread."""
        run = self._run
        if run.directory is None or not run.settings.leads:
            return
        with self._writing:
            run.directory.write_status((status or self._status()) | self._paused)

    def stand(self) -> None:
        """The run stands still: its status says since when, and by whom."""
        self._paused = {
            "state": PAUSED,
            "paused_by": self._by,
            "paused_at": time.time(),
        }
        self.write()
        self._tell(f"paused by {self._by}; `shoal continue` goes on")

    def attend(self) -> None:
        """Nothing more happens."""

    def go_on(self) -> None:
        """It goes on."""
        seconds = time.time() - self._paused["paused_at"]
        self._paused = {}
        self.write()
        if not self._run.interrupted_by:
            self._tell(f"goes on after a pause of {seconds:.1f} s")

    def _stand_here(self) -> float:
        """Stands still while this learner waits for those that do already; the seconds that it took."""
        halt = self._run.meter.halt
        before_s = halt.stood_s
        halt.check()
        return halt.stood_s - before_s

    def _is_meant(self, path: Path) -> bool:
        """Whether a file was made since this run began to start, so that it asks this one."""
        since = starting_since(path.parent)
        try:
            return bool(since) and path.lstat().st_mtime_ns >= since
        except OSError:
            return False

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        """Asks for what the files ask for."""
        run, halt = self._run, self._run.meter.halt
        if run.settings.leads:
            by = self._asked_by(STOP)
            if by is not None and not run.interrupted_by:
                interrupt(run, f"shoal stop, by {by}", STOPPED)
            if run.interrupted_by:  # those who learn beside it are to go on too
                self._clear(PAUSE)
                return
        by = self._asked_by(PAUSE)
        if by is None:
            halt.release()
        elif not halt.asked:
            self._by = by
            halt.ask()

    def _asked_by(self, name: str) -> str | None:
        """Who asks by the file of this name; nobody where something else stands there, which is said once."""
        assert self._folder is not None
        path = self._folder / name
        try:
            return asked_by(path)
        except ConfigError as error:
            if path not in self._refused:
                self._refused.add(path)
                self._tell(str(error))
            return None

    def _clear(self, name: str) -> None:
        """Takes a file away whose wish is over."""
        if self._asked_by(name) is None:
            return
        assert self._folder is not None
        try:
            withdraw(self._folder / name)
        except ConfigError as error:  # the run is not to fail for that
            if name not in self._stuck:
                self._stuck.add(name)
                self._tell(str(error))

    def _tell(self, message: str) -> None:
        tell(self._run, message, how="note")
