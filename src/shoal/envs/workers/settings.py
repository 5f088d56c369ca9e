"""How worker processes are used: how many, how long they may take, and what follows when one of them fails."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import inf

from shoal.types import ConfigError, check_ranges

POLICIES = ("raise", "restart", "drop")


@dataclass(frozen=True, slots=True)
class Workers:
    """How worker processes are used, and what happens when one of them dies, hangs or raises."""

    num_workers: int = 0
    """Subprocesses, at most one per row; 0 means one per core. Does not change results."""
    step_timeout_s: float = 60.0
    """Seconds that a worker may take for a step (or a reset) of its rows before it counts as hung."""
    on_fault: str = "raise"
    """raise: the error ends it; restart: a new process takes over, and the episodes of its rows are cut; drop: the
    episodes are cut, and the rest of the rows go on without."""
    max_restarts: int = 3
    """Maximum restarts of each worker after a reset; then the error is raised."""

    batch_rows: int = 0
    """Rows that a `recv` hands over, those that are done first: a multiple of a worker's rows and a part of all rows. 0
    means all rows, or those of the oldest send, in the order of sends: only that is reproducible."""
    start_timeout_s: float = 60.0
    """Seconds that a process may take to start and make its environments."""
    own_cores: bool = True
    """Pin each worker to CPU cores that no other worker of these rows uses, where there are enough."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        if self.on_fault not in POLICIES:
            raise ConfigError(
                f"unknown on_fault {self.on_fault!r}; use {' or '.join(POLICIES)}"
            )
        check_ranges(
            self,
            num_workers=(0, inf),
            max_restarts=(0, inf),
            batch_rows=(0, inf),
            step_timeout_s=(1e-3, inf),
            start_timeout_s=(1e-3, inf),
        )

    def count(self, num_rows: int) -> int:
        """Processes for this many rows; ConfigError where batches of `batch_rows` are no whole workers' rows."""
        count = min(self.num_workers or len(cores_here()), num_rows)
        if self._fits(num_rows, count):
            return count
        what = "it must divide num_envs"
        if num_rows % self.batch_rows == 0:
            fitting = [n for n in range(1, num_rows + 1) if self._fits(num_rows, n)]
            near = min(fitting, key=lambda n: abs(n - count), default=0)
            what = f"num_workers={near} would"
        raise ConfigError(
            f"batch_rows={self.batch_rows} does not fit {num_rows} rows in {count} workers; {what}"
        )

    def cores(self, worker: int, count: int) -> list[int]:
        """The cores that a worker of `count` may use: its own share, or all where there are fewer than workers.

        A kernel may leave processes that wake each other on one core while another one idles.
        """
        cores = cores_here()
        if not self.own_cores or count > len(cores):
            return cores
        shares = [at * count // len(cores) for at in range(len(cores))]
        return [
            core for core, share in zip(cores, shares, strict=True) if share == worker
        ]

    def _fits(self, num_rows: int, count: int) -> bool:
        """Whether batches are whole workers' rows."""
        if not self.batch_rows:
            return True
        if num_rows % self.batch_rows or num_rows % count:
            return False
        return self.batch_rows % (num_rows // count) == 0


def cores_here() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))
