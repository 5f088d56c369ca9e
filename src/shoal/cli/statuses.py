"""Exit statuses of the commands, and what the help says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.experiment.result import Result

MET, MISSED, BAD_USAGE, FAILED, INTERRUPTED, NO_READER = 0, 1, 2, 3, 130, 141
STATUSES = (
    "Exit status: 0, the greedy evaluation met the threshold, or there is none; 1, it did not; 2, invalid options or "
    "settings; 3, the run failed (an environment error, a full disk, a loss that is not finite), or the guard stopped "
    "it and no threshold was met; 130, Ctrl-C or `shoal stop`."
)


def status_of(result: Result) -> int:
    """The exit status of a training."""
    from shoal.run.interrupts import STOPPED

    if result.stop_reason == STOPPED:
        return INTERRUPTED
    if result.guard_stopped and (result.threshold is None or not result.solved):
        return FAILED
    return MET if result.solved else MISSED
