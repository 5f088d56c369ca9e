"""Exit statuses of the commands, and what the help says of them."""

from __future__ import annotations

MET, MISSED, BAD_USAGE, FAILED, INTERRUPTED, NO_READER = 0, 1, 2, 3, 130, 141
STATUSES = (
    "Exit status: 0, the greedy evaluation met the threshold, or there is none; 1, it did not; 2, invalid options or "
    "settings; 3, the run failed (an environment error, a full disk, a loss that is not finite); 130, Ctrl-C."
)
