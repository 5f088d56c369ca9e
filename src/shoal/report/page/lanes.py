"""Lanes: a run's timeline as the page draws it, a lane for each process, in at most so many spans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.run.traces import read_traces
from shoal.stream.spans import KINDS
from shoal.types.text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.run.traces import Trace

MOST_LANES, MOST_SPANS = 64, 20_000


def lanes(path: Path) -> dict[str, Any]:
    """The timeline in `path`: updates, microseconds since its beginning, and the lanes.

    Of too many spans the longest are kept; the shares are of all.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    traces = read_traces(path)
    shown = traces.processes[:MOST_LANES]
    most = MOST_SPANS // max(1, len(shown))
    return {
        "first": traces.first,
        "last": traces.last,
        "elapsed_us": round(traces.elapsed_s * 1e6),
        "kinds": KINDS,
        "left_out": len(traces.processes) - len(shown),
        "lanes": [
            _lane(trace, traces.begun_s, traces.elapsed_s, most) for trace in shown
        ],
    }


def _lane(trace: Trace, since_s: float, elapsed_s: float, most: int) -> dict[str, Any]:
    spans = trace.spans
    if len(spans) > most:
        lengths = spans[:, 2] - spans[:, 1]
        longest = np.argpartition(-lengths, most)[:most]
        spans = spans[np.sort(longest)]
    begun = np.round((spans[:, 1] - since_s) * 1e6)
    lasted = np.round((spans[:, 2] - spans[:, 1]) * 1e6)
    numbers = np.stack([spans[:, 0], begun, lasted], 1).astype(np.int64)
    shares = {name: seconds / elapsed_s for name, seconds in trace.seconds.items()}
    return {
        "name": printable(trace.name, 60),
        "spans": numbers.reshape(-1).tolist(),
        "shares": {name: share for name, share in shares.items() if share > 0},
    }
