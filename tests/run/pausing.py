"""A callback that has its own run paused for a while, from another thread, and notes what went on meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any

import psutil

from shoal.run import control

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.run.directory import RunDirectory
    from shoal.run.run import Run


def processor_seconds() -> float:
    """Of this process and all that it started, those that are there."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


@dataclass
class Pauser:
    """Pauses the run `after_s` after the line of update `at`, for `hold_s`."""

    at: int = 2
    after_s: float = 0.0
    hold_s: float = 0.4
    end: str = "continue"
    """`continue`, or `stop` while it is paused."""
    noticed_s: float = 0.0
    """Seconds until the run stood still."""
    status: dict[str, Any] = field(default_factory=dict)
    """What run.json said meanwhile."""
    busy: float = 0.0
    """Processor seconds a second meanwhile."""
    went_on_s: float = 0.0
    error: BaseException | None = None
    episodes = False
    meanwhile: Callable[[RunDirectory], object] | None = None
    """What is done while it stands still."""
    _thread: Thread | None = None

    def __call__(self, run: Run, record: Any) -> None:
        if record["update"] == self.at and self._thread is None:
            assert run.directory is not None
            self._thread = Thread(target=self._guarded, args=(run.directory,))
            self._thread.start()
            while not self.after_s and not run.meter.halt.asked and self.error is None:
                time.sleep(0.01)  # or the run would be over before it notices

    def joined(self) -> Pauser:
        """When it is done."""
        assert self._thread is not None, "the line never came"
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self

    def _guarded(self, where: RunDirectory) -> None:
        try:
            self._pause(where)
        except BaseException as error:
            self.error = error
            control.withdraw(where.path / control.PAUSE)

    def _pause(self, where: RunDirectory) -> None:
        time.sleep(self.after_s)
        begun = time.monotonic()
        control.pause(where)
        found = control.wait_until(where, 20.0, lambda now: now.get("state") == "paused")
        assert found is not None
        self.noticed_s = time.monotonic() - begun
        self.status = found
        time.sleep(0.3)  # whoever spins for a moment is done by then
        before, since = processor_seconds(), time.monotonic()
        time.sleep(self.hold_s)
        self.busy = (processor_seconds() - before) / (time.monotonic() - since)
        if self.meanwhile is not None:
            self.meanwhile(where)
        begun = time.monotonic()
        if self.end == "stop":
            control.stop(where)
            return
        control.go_on(where)
        assert control.wait_until(where, 20.0, lambda now: now.get("state") != "paused") is not None
        self.went_on_s = time.monotonic() - begun
