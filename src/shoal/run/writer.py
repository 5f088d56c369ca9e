"""Saves checkpoints of one run: training waits for the snapshot, a thread writes it."""

from __future__ import annotations

import errno
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

from shoal.run import checkpoint
from shoal.run.snapshot import take

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from shoal.run.checkpoint import Checkpoint
    from shoal.run.log import Log
    from shoal.run.origin import Identity
    from shoal.run.snapshot import Known, Snapshot

WAIT_S = 900.0
"""Seconds that training waits for the checkpoint under way."""
DISK_FULL = (
    "the run goes on from its last checkpoint with `shoal resume` once there is room"
)


def write_line(log: Log, record: dict[str, float]) -> None:
    """Writes a line of metrics; OSError says how the run goes on."""
    try:
        log.write(record)
    except OSError as error:
        said = f"{error.strerror or error}; {DISK_FULL}"
        raise OSError(error.errno, said) from error


class Writer:
    """The checkpoints of one folder, of which one at a time is being written.

    What goes wrong in the thread is raised by the next call here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: Mapping[str, str],
        keep_last: int,
        identity: Identity | None = None,
    ) -> None:
        """Only one at a time may save into `folder`.

        Args:
            folder: the run's checkpoint folder.
            kind: what the checkpoints belong to (env, algo, ...).
            keep_last: how many rolling checkpoints stay.
            identity: the run that they belong to, and its settings.
        """
        self.folder, self.kind, self.keep_last = folder, dict(kind), keep_last
        self.identity = identity
        self._thread: threading.Thread | None = None
        self._updates = 0
        self._error: BaseException | None = None
        self._known: Known = {}

    def load(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; what it holds of append-only parts is not written again.

        Raises:
            ConfigError: as `checkpoint.load`.
        """
        found = checkpoint.load(self.folder, kind=self.kind, identity=self.identity)
        self._known = {} if found is None else found.pieces
        return found

    def save(
        self,
        parts: Mapping[str, object],
        *,
        updates: int,
        best: bool = False,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        """Begins to write the checkpoint of `updates`; first waits for the one under way.

        Args:
            parts: trees of numbers, arrays and tensors by name; they may change when
                this returns.
            updates: how many updates came before.
            best: the same files are also the checkpoint `best`.
            before: called in the thread before anything is written.
            after: called in the thread when all is written.

        Raises:
            TypeError: a tree holds what a checkpoint cannot.
            OSError: this checkpoint or the one before was not written.
        """
        self.wait()
        try:
            snapshot = take(self.folder, parts, known=self._known)
        except OSError as error:
            said = f"the checkpoint of update {updates} was not written ({error})"
            left = checkpoint.what_is_left(self.folder)
            raise OSError(error.errno, self._next(f"{said}; {left}")) from error
        self._updates = updates
        tags = ("best", "") if best else ("",)
        write = partial(self._write, snapshot, tags, before, after)
        # Not a daemon: an interpreter that ends lets it finish.
        self._thread = threading.Thread(target=write, name="shoal checkpoint")
        self._thread.start()

    def write_best(self, parts: Mapping[str, object]) -> bool:
        """Makes the newest checkpoint with these parts the one that is called `best`, at once; whether there is one.

        Raises:
            OSError: it was not written; all checkpoints are as they were.
        """
        self.wait()
        return checkpoint.write_best(self.folder, take(self.folder, parts, known={}))

    def wait(self) -> None:
        """Returns when the checkpoint under way is on the disk.

        Raises:
            OSError: it was not written.
            TimeoutError: it takes longer than `WAIT_S`.
        """
        if self._thread is not None:
            self._thread.join(WAIT_S)
            if self._thread.is_alive():
                raise TimeoutError(
                    errno.ETIMEDOUT,
                    f"the checkpoint of update {self._updates} is still being written after {WAIT_S:g} s; "
                    f"see whether the disk of {self.folder} answers; older ones are safe",
                )
            self._thread = None
        error, self._error = self._error, None
        if isinstance(error, OSError):
            said = error.strerror or str(error)
            raise OSError(error.errno, self._next(said)) from error
        if error is not None:
            raise error

    def _next(self, said: str) -> str:
        """What went wrong, and how the run goes on; where its folder is gone, it does not."""
        return f"{said}; {DISK_FULL}" if self.folder.is_dir() else said

    def close(self) -> None:
        """Waits as `wait`; while another exception is handled, an error here becomes a note to it."""
        cause = sys.exception()
        try:
            self.wait()
        except OSError as error:
            if cause is None:
                raise
            cause.add_note(f"shoal: {error}")

    def _write(
        self,
        snapshot: Snapshot,
        tags: tuple[str, ...],
        before: Callable[[], None] | None,
        after: Callable[[], None] | None,
    ) -> None:
        try:
            if before is not None:
                before()
            self._known = checkpoint.write(
                self.folder,
                snapshot,
                updates=self._updates,
                kind=self.kind,
                identity=self.identity,
                tags=tags,
            )
            checkpoint.prune(self.folder, self.keep_last)
            if after is not None:
                after()
        except BaseException as error:
            snapshot.discard()
            self._error = error
