"""What `pause`, `continue` and `stop` have in common: whom they ask, and what they say of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    timeout_s: float = 10.0
    """Wait at most so many seconds until the run has done it."""

    def found(self) -> RunDirectory:
        """The run; ConfigError where there is none."""
        from shoal.run.directory import find

        return find(self.run, Path(self.run_dir))


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
    name = printable(run.path)
    if status is None:
        print(f"{name}: asked to be {wanted}, but {late}")
        return NOT_YET
    state = status.get("state", "unknown")
    where = f"at step {status.get('steps', 0):,}"
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
