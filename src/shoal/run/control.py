"""Control: the files by which a person pauses or stops a run, and how a command asks for it and learns what came of it.

An empty file `pause` in a run's directory pauses the run for as long as it is there, and a file `stop` ends it. Only
whether they are there counts, and whose they are: what is in them is never read. The file `starting` holds which
process makes ready to train, so that one that was killed is known.
"""

from __future__ import annotations

import json
import os
import platform
import pwd
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from shoal.run.drafts import sync_folder
from shoal.run.reading import KINDS, read_json
from shoal.run.status import is_running, is_there, process_here
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from shoal.run.directory import RunDirectory

PAUSE, STOP = "pause", "stop"
"""The files, by their names."""
PAUSED = "paused"
"""The state of a run that stands still."""
STARTING, STARTING_S = "starting", 600.0
"""The file of a run that makes ready to train, and the longest that takes where its process cannot be asked for: an
older one is of a killed process."""
STARTING_BYTES = 4096
"""What that file may take; shoal's own take some hundred bytes."""
LOOK_S = 0.1
"""Whoever waits for a run looks at its status once in so many seconds."""


def asked_by(path: Path) -> str | None:
    """Whose file it is, by name; None where there is none.

    Raises:
        ConfigError: something else than a file stands there; nobody is asked anything by it.
    """
    try:
        found = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        known = {stat.S_ISLNK: "a link"} | KINDS
        kind = next(said for test, said in known.items() if test(found.st_mode))
        raise ConfigError(
            f"{path} is {kind}, not a file: it is left alone, and the run goes on; `touch {path}` makes a file"
        )
    try:
        return pwd.getpwuid(found.st_uid).pw_name
    except KeyError:  # of a user whom this machine does not know
        return f"user {found.st_uid}"


def pause(run: RunDirectory) -> None:
    """Asks a run to stand still until `go_on`; one that starts does as soon as it runs.

    Raises:
        ConfigError: it does not run, or the directory is another's.
    """
    _check_runs(run)
    _place(run.path / PAUSE)


def go_on(run: RunDirectory) -> None:
    """Asks a run that was paused to go on; ConfigError where it was not."""
    path = run.path / PAUSE
    if asked_by(path) is None:
        raise ConfigError(f"{run.path} is not paused")
    withdraw(path)


def stop(run: RunDirectory) -> None:
    """Asks a run to end, with a checkpoint; errors as of `pause`."""
    _check_runs(run)
    _place(run.path / STOP)


def withdraw(path: Path) -> None:
    """Takes a file away; ConfigError where that is not allowed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be deleted: {error.strerror}; whoever owns the folder can"
        ) from error


def wait_until(
    run: RunDirectory,
    within_s: float,
    reached: Callable[[dict[str, Any]], bool],
) -> dict[str, Any] | None:
    """The status of a run when it is as wanted, or when the run is gone; None where neither comes in time."""
    end_s = time.monotonic() + within_s
    while True:
        starts = is_starting(run)  # asked first: it runs when it starts no more
        status = run.read_status()
        if not starts and (reached(status) or not is_running(run)):
            return run.read_status()
        if time.monotonic() >= end_s:
            return None
        time.sleep(LOOK_S)


def is_starting(run: RunDirectory) -> bool:
    """Whether a process makes ready to train there, and has not begun."""
    return starting_since(run.path) > 0


def starting_since(folder: Path) -> int:
    """When a run in `folder` began to start, in nanoseconds as files are stamped; 0 where none starts."""
    try:
        found = (folder / STARTING).lstat()
    except OSError:
        return 0
    if not stat.S_ISREG(found.st_mode):
        return 0
    going = _starts_here(folder / STARTING)
    if going is None:
        going = abs(time.time() - found.st_mtime) < STARTING_S
    return found.st_mtime_ns if going else 0


def was_killed_at_start(run: RunDirectory) -> bool:
    """Whether the process of a run is gone that made ready to train, and had not written a status yet."""
    try:
        left = stat.S_ISREG((run.path / STARTING).lstat().st_mode)
    except OSError:
        return False
    return left and not is_starting(run) and not run.read_status()


def _starts_here(path: Path) -> bool | None:
    """Whether the process that a file `starting` names is there; None where the file or the machine does not tell."""
    try:
        said = read_json(path, at_most=STARTING_BYTES)
    except (
        OSError,
        ValueError,
    ):  # empty, as those of earlier versions, or a stranger's
        return None
    if not isinstance(said, dict):
        return None
    told = cast("dict[str, object]", said)
    pid, started = told.get("pid"), told.get("process_started")
    if told.get("host") != platform.node() or not isinstance(pid, int):
        return None
    return is_there(pid, started) if isinstance(started, float) else None


@contextmanager
def announced(folder: Path) -> Generator[None]:
    """Has a run's directory say that it starts, and in which process, until it is `begun`, or this block is left.

    Where something else has that name, nobody can ask it before it runs.
    """
    path = folder / STARTING
    with suppress(ConfigError):
        withdraw(path)
        _place(path, json.dumps(process_here()).encode())
    try:
        yield
    finally:
        begun(folder)


def begun(folder: Path) -> None:
    """The run starts no more: it runs, or failed to."""
    with suppress(ConfigError):
        withdraw(folder / STARTING)


def _check_runs(run: RunDirectory) -> None:
    if is_starting(run) or is_running(run):
        return
    status = run.read_status()
    state = status.get("state", "none that any process has begun")
    host = status.get("host", platform.node())
    if state in ("running", PAUSED) and host != platform.node():
        raise ConfigError(
            f"{run.path} runs on {host}: give the command there, or `touch {run.path / PAUSE}` (or {STOP}) where its "
            "folder is seen there too"
        )
    if state in ("running", PAUSED):
        state = "interrupted: its process is gone"
    if was_killed_at_start(run):
        state = "interrupted: its process was killed before it trained"
    raise ConfigError(
        f"{run.path} does not run (it is {state}), so there is nothing to ask of it"
    )


def _place(path: Path, data: bytes = b"") -> None:
    """Makes a file, whosever it is then, and writes `data` into it; ConfigError where that is not allowed."""
    asked_by(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o644)
        try:
            if data:
                os.write(handle, data)
        finally:
            os.close(handle)
        sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be made: {error.strerror}; whoever may write into the folder can pause or stop the run"
        ) from error
