"""Trials as jobs of a fleet: Ray finds room for each, and one whose node is lost goes on from its checkpoint."""

from __future__ import annotations

import sys
from contextlib import closing, redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING

from shoal.experiment.sweep.trial import run_trial
from shoal.fleet.settings import check_installed

if TYPE_CHECKING:
    from shoal.experiment.sweep.settings import SweepSettings
    from shoal.experiment.sweep.trial import Job


class FleetWorkers:
    """Trials on a Ray cluster; every node must see the sweep's directory under the same path."""

    def __init__(self, settings: SweepSettings, what: str) -> None:
        """Starts or joins the cluster.

        Args:
            settings: the sweep's.
            what: it is, in words.

        Raises:
            ConfigError: Ray is not installed, or there is no cluster.
        """
        check_installed()
        import ray

        from shoal.fleet.cluster import Cluster
        from shoal.fleet.trainings import Running

        assert settings.fleet is not None
        self._cluster = Cluster(settings.fleet, what)
        cpus = float(settings.cpus)
        self._running = Running(ray, self._cluster, [], cpus, settings.retries)
        self._names: list[str] = []
        self._told: set[int] = set()

    def room(self) -> int:
        """Trials at a time, at least one."""
        cpus = self._cluster.total().get("CPU", 1.0)
        return max(1, int(cpus // self._running.cpus))

    def begin(self, job: Job) -> None:
        """Begins a trial."""
        from shoal.fleet.trainings import Job as FleetJob

        jobs = [*self._running.jobs, FleetJob(job.name, run_trial, (asdict(job),))]
        self._running.jobs = jobs
        self._names.append(job.name)
        self._running.begin(len(jobs) - 1)

    def ended(self) -> dict[str, str]:
        """As of `Workers`."""
        waited = list(self._running.actors)
        if waited:
            finished, _ = self._running.ray.wait(waited, num_returns=1, timeout=0)
            for reply in finished:
                with redirect_stdout(sys.stderr):  # what it prints is no result
                    self._running.settle(reply)
        found: dict[str, str] = {}
        for number in (*self._running.done, *self._running.lost):
            if number not in self._told:
                self._told.add(number)
                found[self._names[number]] = self._running.lost.get(number, "")
        return found

    def interrupt(self) -> None:
        """As of `Workers`: they go on from their last checkpoints, as nothing on a node is told of Ctrl-C."""
        self._running.close()

    def close(self) -> None:
        """As of `Workers`."""
        with closing(self._cluster):
            self._running.close()
