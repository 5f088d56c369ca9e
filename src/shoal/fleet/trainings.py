"""Jobs on a fleet, such as trainings: as many at a time as there is room for, and begun again where one is lost."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.fleet.cluster import NAMESPACE
from shoal.fleet.env_server import About, Lines, node
from shoal.fleet.servers import in_words, last_line
from shoal.fleet.settings import LOCAL
from shoal.types import ConfigError, EnvError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.fleet.cluster import Cluster

LOOK_S = 1.0


class Job(NamedTuple):
    """A call of a function that Ray can send: one of a module, or one that can be pickled."""

    what: str
    function: Callable[..., Any]
    given: tuple[Any, ...] = ()


class Training:
    """A process of a fleet that runs one job. Ray calls its methods in threads."""

    def __init__(self, what: str, tries: int) -> None:
        """`tries`: how often the job was begun before."""
        self._what, self._tries = what, tries
        self._lines, self._begun_s = Lines(), time.monotonic()

    def run(self, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        """What the job returns."""
        return function(*given)

    def about(self) -> About:
        """How it is."""
        seconds = time.monotonic() - self._begun_s
        return About(self._what, "", node(), os.getpid(), self._tries, seconds)

    def log(self, lines: int) -> list[str]:
        """The last lines of its log."""
        return self._lines.last(lines)


@dataclass(slots=True)
class Running:
    """Jobs of a cluster, and what became of each."""

    ray: Any
    cluster: Cluster
    jobs: Sequence[Job]
    cpus: float
    retries: int
    actors: dict[Any, Any] = field(default_factory=dict)
    """By what is waited for."""
    numbers: dict[Any, int] = field(default_factory=dict)
    """And of which job it is."""
    tries: dict[int, int] = field(default_factory=dict)
    """Of each job: how often it was begun again."""
    done: dict[int, Any] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    """Jobs that failed too often, and why."""

    def begin(self, number: int) -> Any:
        """Has Ray run a job as soon as there is room; its actor."""
        job, tries = self.jobs[number], self.tries.setdefault(number, 0)
        actor = (
            self.ray.remote(Training)
            .options(
                name=f"{self.cluster.name}/run-{number}-{tries}",
                namespace=NAMESPACE,
                num_cpus=self.cpus,
                max_restarts=0,
                max_concurrency=2,
            )
            .remote(job.what, tries)
        )
        reply = actor.run.remote(job.function, job.given)
        self.actors[reply], self.numbers[reply] = actor, number
        return actor

    def settle(self, reply: Any) -> None:
        """Takes what has come of a job, or begins it again; ConfigError where its settings cannot work."""
        number, actor = self.numbers.pop(reply), self.actors.pop(reply)
        job = self.jobs[number]
        try:
            self.done[number] = self.ray.get(reply)
            print(f"trained {job.what}", flush=True)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ConfigError):
                raise ConfigError(f"{job.what}: {text_of(error.cause)}") from error
            self._again(number, f"{type(error.cause).__name__}: {text_of(error.cause)}")
        except self.ray.exceptions.RayError as error:
            self._again(number, f"its process or node is lost ({last_line(error)})")
        with suppress(Exception):
            self.ray.kill(actor)

    def _again(self, number: int, why: str) -> None:
        what = self.jobs[number].what
        if self.tries[number] == self.retries:
            self.lost[number] = f"{what} failed, begun {self.retries + 1} times: {why}"
            print(self.lost[number], flush=True)
            return
        self.tries[number] += 1
        count = self.tries[number]
        print(f"{what} failed: {why}; begun again ({count} of {self.retries})")
        self.begin(number)

    def close(self) -> None:
        """Ends what runs."""
        for actor in self.actors.values():
            with suppress(Exception):
                self.ray.kill(actor)


def run_all(
    cluster: Cluster, jobs: Sequence[Job], *, cpus: float, retries: int, wait_s: float
) -> list[Any]:
    """Runs jobs side by side; what each returned, in their order.

    Args:
        cluster: where.
        jobs: at least one.
        cpus: that each takes.
        retries: how often one that fails, or whose node is lost, is begun again.
        wait_s: until when the first must have room.

    Raises:
        ConfigError: there is no room, or a job raised it.
        EnvError: a job failed or was lost too often; the others have ended.
    """
    import ray

    running = Running(ray, cluster, jobs, cpus, retries)
    if cluster.where == LOCAL and cpus > cluster.total().get("CPU", 0.0):
        wait_s = 0.0  # no other node will come
    try:
        begun = [running.begin(number) for number in range(len(jobs))]
        asked = [actor.about.remote() for actor in begun]
        ready, _ = running.ray.wait(asked, num_returns=1, timeout=wait_s)
        if not ready:
            raise ConfigError(
                f"fleet={cluster.where!r} has no room for a run with {cpus:g} CPU: free are {in_words(cluster.free())} "
                f"of {in_words(cluster.total())}, and one run must fit on one node; ask for less with --cpus"
            )
        while running.actors:
            waited = list(running.actors)
            finished, _ = running.ray.wait(waited, num_returns=1, timeout=LOOK_S)
            for reply in finished:
                running.settle(reply)
    finally:
        running.close()
    if running.lost:
        raise EnvError("; ".join(running.lost.values()))
    return [running.done[number] for number in range(len(jobs))]
