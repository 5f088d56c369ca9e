"""Leaving: what a user's code raises to end a loop or the process, where it was only asked for an answer."""

from __future__ import annotations

import traceback
from pathlib import Path

from shoal.types.errors import ConfigError, text_of

RAISED = (Exception, SystemExit, GeneratorExit)
"""All that a user's code may raise but Ctrl-C, which goes on to be an interrupt."""
LEAVES = (StopIteration, SystemExit, GeneratorExit)
"""Of these, what would end a loop in silence, or the process without a word of its run."""


def refuse_leaving(
    error: BaseException,
    where: str,
    instead: str = "raise another exception where something is wrong",
    *,
    kind: type[Exception] = ConfigError,
) -> None:
    """Raises an error in the place of StopIteration, SystemExit (`sys.exit()`) and GeneratorExit.

    Args:
        error: what a user's code raised.
        where: whose code that is.
        instead: what it should do.
        kind: of the error that is raised.
    """
    if isinstance(error, LEAVES):
        said = f" ({text_of(error)})" if text_of(error) else ""
        name = type(error).__name__
        raise kind(f"{where} raised {name}{said}{_place(error)}; {instead}") from error


def refuse_end(error: BaseException) -> BaseException:
    """What a run failed with: a ConfigError in the place of what would have ended the process, or a loop.

    A StopIteration that came out of a generator is a RuntimeError by then.
    """
    cause = error.__cause__
    if type(error) is RuntimeError and isinstance(cause, StopIteration):
        error = cause
    try:
        refuse_leaving(
            error,
            "code that the run called",
            "run.stop(reason) in a callback ends a run with a checkpoint; any other exception says what is wrong",
        )
    except ConfigError as refused:
        refused.__cause__ = error
        return refused
    return error


def _place(error: BaseException) -> str:
    """The file and line that it was raised in."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    return f" in {last.name} ({Path(last.filename).name}, line {last.lineno})"
