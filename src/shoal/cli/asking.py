"""What `pause`, `continue` and `stop` have in common: whom they ask, and what they say of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.run.directory import RunDirectory

DONE, NOT_YET = 0, 1
"""Exit statuses: the run did what was asked of it; or it had not when the time was over."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Options of a command that asks something of a run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, its name, or a directory of runs (the newest is asked)."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""
    all: bool = False
    """Ask every run below RUN that goes on, such as the trials of a sweep, not the newest alone."""
    timeout_s: float = 10.0
    """Wait at most so many seconds until the run has done it."""


def ask(
    given: Asking,
    order: Callable[[RunDirectory], None],
    *,
    wanted: str,
    late: str,
) -> int:
    """Asks something of runs, then waits for each of them and says what came of it; the exit status.

    Args:
        given: of which runs.
        order: asks it of one.
        wanted: the state that is asked for.
        late: what is said where that does not come in time.

    Raises:
        ConfigError: there are no such runs, or the only one cannot be asked.
    """
    from shoal.run import control
    from shoal.run.directory import find_all

    if not given.timeout_s >= 0:
        raise ConfigError(f"--timeout-s must be at least 0, got {given.timeout_s:g}")
    runs = find_all(given.run, Path(given.run_dir))
    runs = [run for run in runs if _goes_on(run)] if given.all else runs[-1:]
    if not runs:
        raise ConfigError(f"no run below {given.run} goes on")
    status = DONE
    for run in runs:
        order(run)
    for run in runs:
        found = control.wait_until(
            run, given.timeout_s, lambda now: now.get("state") == wanted
        )
        status = max(status, told(run, found, wanted=wanted, late=late))
    return status


def _goes_on(run: RunDirectory) -> bool:
    from shoal.run.control import is_starting
    from shoal.run.status import is_running

    return is_starting(run) or is_running(run)


def told(
    run: RunDirectory, status: Mapping[str, Any] | None, *, wanted: str, late: str
) -> int:
    """Says what came of it; the exit status.

    Args:
        run: who was asked.
        status: what the run says now; None where nothing came of it in time.
        wanted: the state that was asked for.
        late: what is said then.
    """
    from shoal.run.control import is_starting
    from shoal.run.directory import rolling
    from shoal.run.status import is_running

    name = printable(run.path)
    if status is None and is_starting(run):
        print(f"{name}: it still starts, and will be {wanted} as soon as it runs")
        return NOT_YET
    if status is None:
        print(f"{name}: asked to be {wanted}, but {late}")
        return NOT_YET
    state = status.get("state", "unknown")
    where = f"at step {status.get('steps', 0):,}"
    if state in ("running", "paused") and not is_running(run):
        on = "goes on from its newest checkpoint"
        if not rolling(run.checkpoints):
            on = "begins it at step 0, as it has no checkpoint"
        print(f"{name}: its process is gone, {where}; `shoal resume {name}` {on}")
        return NOT_YET
    if state != wanted:
        print(f"{name}: it is {printable(str(state))} by now, {where}")
        return NOT_YET
    print(f"{name}: {wanted} {where}{_next(run, wanted)}")
    return DONE


def _next(run: RunDirectory, state: str) -> str:
    """How it goes on."""
    name = printable(run.path)
    if state == "paused":
        return f"; `shoal continue {name}` goes on"
    return f"; `shoal resume {name}` goes on" if state == "stopped" else ""
