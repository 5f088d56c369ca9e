"""Ctrl-C, SIGTERM and SIGHUP: the first one ends a run after its update, the second one at once."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

INTERRUPTED = "interrupted"
"""The stop reason of a run that Ctrl-C, SIGTERM or SIGHUP ended."""
STOPPED = "stopped"
"""The stop reason of a run that a person stopped by `shoal stop`, or a file."""
CUT_SHORT = (INTERRUPTED, STOPPED)
"""Stop reasons of runs that are to be gone on with: nothing is done at their end that would change what follows."""
CAUGHT = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP",
}
"""What ends a run, and how it is called: a person, whoever runs the machine, a terminal that was closed."""


def check_reason(reason: object) -> None:
    """ValueError for what is no reason to end a run, or says that a person ended it."""
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError(f"run.stop needs a reason in words, got {reason!r}")
    if reason in CUT_SHORT:
        raise ValueError(
            f"{reason!r} is the reason of runs that Ctrl-C or `shoal stop` ended; give run.stop another one"
        )


class Interrupts:
    """Counts the signals that end a run while a loop lasts; other threads than the main one get none."""

    def __init__(self, first: Callable[[str], None]) -> None:
        """`first` is called at the first one, with its name."""
        self._first = first
        self._count = 0
        self._before: dict[int, Any] = {}
        self._terminals: list[int] = []

    def catch(self) -> None:
        """Begins; a signal that is ignored (as by nohup) or handled by somebody else stays so."""
        if threading.current_thread() is not threading.main_thread():
            return
        # What torch does at exit imports it, if it is installed, and evaluates strings meanwhile: Python then forgets
        # that a KeyboardInterrupt ended the program, whose parent is not told of the signal.
        with suppress(ImportError):
            import_module("tabulate")
        self._terminals = [file for file in (1, 2) if os.isatty(file)]
        for number in CAUGHT:
            handler = signal.getsignal(number)
            if number == signal.SIGINT or handler == signal.SIG_DFL:
                self._before[number] = signal.signal(number, self._interrupt)

    def release(self) -> None:
        """Gives the signals back; again does nothing."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:
            self._leave_terminals()
        self._count += 1
        if self._count > 1:
            raise KeyboardInterrupt
        self._first(CAUGHT[signal.Signals(signum)])

    def _leave_terminals(self) -> None:
        """What is printed from here on goes nowhere: on a terminal that is gone it would be an error."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for file in self._terminals:
            os.dup2(nowhere, file)
        os.close(nowhere)
