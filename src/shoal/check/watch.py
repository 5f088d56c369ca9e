"""A time limit around code that may never return, and where it stood when the limit was reached."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

T = TypeVar("T")

RING_AGAIN_S, TELL_S = 1.0, 10.0
OWN = str(Path(__file__).parents[1]) + os.sep


class TimeUp(BaseException):
    """The limit was reached; `stack` is where. No Exception, so that `except Exception` does not swallow it."""

    def __init__(self, stack: traceback.StackSummary) -> None:
        """`stack`: the outermost call first."""
        super().__init__(place(stack))
        self.stack = stack


def within(
    limit_s: float,
    call: Callable[[], T],
    *,
    beat: Callable[[], int],
    ends_at_s: float | None = None,
    tell: Callable[[float], None] | None = None,
) -> T:
    """`call()`, or TimeUp after `limit_s` seconds, or twice as many, in which `beat()` stays the same.

    In the main thread the call is interrupted; elsewhere it is run in a thread of its own, which is left behind. Code
    that neither returns nor lets Python run can only be stopped with its process: after `ends_at_s` seconds without a
    beat that happens, and faulthandler prints the stack. `tell` is called with the seconds so far, every TELL_S.
    """
    with contextlib.ExitStack() as held:
        if ends_at_s is not None:
            held.callback(faulthandler.cancel_dump_traceback_later)
            _process_ends(ends_at_s)
        if threading.current_thread() is threading.main_thread():
            return _interrupted(limit_s, call, beat, ends_at_s, tell)
        return _left_behind(limit_s, call, beat)


def place(stack: traceback.StackSummary) -> str:
    """The innermost lines of a stack, down to shoal's own, innermost first."""
    frames = list(stack)
    beyond = 0
    for number, frame in enumerate(frames, 1):
        if frame.filename.startswith(OWN):
            beyond = number
    frames = frames[beyond:] or frames[-1:]
    if not frames:
        return ""
    inner: list[str] = []
    for frame in reversed(frames[-3:]):
        file = Path(frame.filename).name
        inner.append(f"{file}:{frame.lineno} in {frame.name}")
    said = ", called from ".join(inner)
    line = frames[-1].line
    return f"{said} (`{line}`)" if line else said


def _interrupted(
    limit_s: float,
    call: Callable[[], T],
    beat: Callable[[], int],
    ends_at_s: float | None,
    tell: Callable[[float], None] | None,
) -> T:
    began = time.monotonic()
    last, since, told = beat(), began, began

    def ring(_signum: int, frame: FrameType | None) -> None:
        nonlocal last, since, told
        before, last, now = last, beat(), time.monotonic()
        if before != last:
            since = now
            if ends_at_s is not None:
                _process_ends(ends_at_s)
        elif now - since >= limit_s:
            # Should a bare `except:` swallow this.
            signal.setitimer(signal.ITIMER_REAL, RING_AGAIN_S, RING_AGAIN_S)
            raise TimeUp(_stack(frame))
        if tell is not None and now - told >= TELL_S:
            told = now
            tell(now - began)

    handler = signal.signal(signal.SIGALRM, ring)
    every_s = min(limit_s, TELL_S)
    left_s, interval_s = signal.setitimer(signal.ITIMER_REAL, every_s, every_s)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left_s:  # another's timer goes on
            remaining_s = left_s - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(remaining_s, 1e-3), interval_s)


def _left_behind(limit_s: float, call: Callable[[], T], beat: Callable[[], int]) -> T:
    made: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            made.append(call())
        except BaseException as error:  # it is raised again in the thread that asked
            raised.append(error)

    within_context = partial(copy_context().run, run)
    thread = threading.Thread(
        target=within_context, name="shoal check-env", daemon=True
    )
    thread.start()
    before, now = -1, beat()
    while thread.is_alive() and now != before:
        thread.join(limit_s)
        before, now = now, beat()
    if thread.is_alive():
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        raise TimeUp(_stack(frames.get(thread.ident or 0)))
    if raised:
        raise raised[0]
    return made[0]


def _process_ends(after_s: float) -> None:
    """The process ends then, unless this is called again before."""
    faulthandler.dump_traceback_later(
        after_s, exit=True, file=sys.__stderr__ or sys.stderr
    )


def _stack(frame: FrameType | None) -> traceback.StackSummary:
    return traceback.extract_stack(frame) if frame else traceback.StackSummary()
