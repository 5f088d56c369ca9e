"""Ctrl-C: the first one ends a run after its update, the second one at once."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Interrupts:
    """Counts Ctrl-C while a loop lasts; other threads than the main one cannot."""

    def __init__(self, first: Callable[[], None]) -> None:
        """`first` is called at the first one."""
        self._first = first
        self._count = 0
        self._before: Any = None

    def catch(self) -> None:
        """Begins."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._interrupt)

    def release(self) -> None:
        """Gives Ctrl-C back; again does nothing."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 1:
            raise KeyboardInterrupt
        self._first()
