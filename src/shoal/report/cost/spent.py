"""Spent: what runs took, and what that costs on a machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal.report.cost.machines import Machine, Rented
from shoal.report.run_table import state_of
from shoal.run.usage import unheard_s, usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.report.cost.money import Money
    from shoal.run.directory import RunDirectory

LOST = ("failed", "interrupted")
"""States of runs that came to nothing, whose cost counts all the same."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one run took."""

    run: RunDirectory
    env: str
    algo: str
    seed: int
    state: str
    host: str
    wall_s: float
    """For which it held its machine, pauses and evaluations included; of earlier versions', for which it trained."""
    processor_s: float
    """Of all its processes on this machine; 0: not known."""
    cores: int
    """That it could use; 0: not known."""
    reached: bool | None
    """Whether it met its threshold; None where it has none, or has not ended."""
    elsewhere: bool = False
    """Whether other machines (a fleet, servers) worked for it too, of which nothing is known."""

    @property
    def busy(self) -> float:
        """Cores that it kept busy, in the mean; 0: not known."""
        return self.processor_s / self.wall_s if self.wall_s > 0 else 0.0


def spent_by(run: RunDirectory) -> Spent:
    """What a run's directory says; ConfigError where it is damaged."""
    status, config = run.read_status(), run.read_config()
    usage = usage_of(status)
    seconds = float(status.get("seconds") or 0.0)
    taken = usage or {"wall_s": seconds, "processor_s": 0.0, "cores": 0}
    return Spent(
        run,
        env=str(config.get("env", "?")),
        algo=str(config.get("algo", "?")),
        seed=int(status.get("seed", 0)),
        state=state_of(run),
        host=str(status.get("host", "")),
        wall_s=float(taken["wall_s"]) + unheard_s(run, status),
        processor_s=float(taken["processor_s"]),
        cores=int(taken["cores"]),
        reached=_reached(status),
        elsewhere=bool(config.get("fleet")) or "grpc" in str(config.get("env")),
    )


def _reached(status: Mapping[str, Any]) -> bool | None:
    threshold = status.get("threshold")
    if threshold is None or status.get("state") != "finished":
        return None
    reached = status.get("greedy_return", status.get("return"))
    return reached is not None and reached >= threshold


def hours_on(spent: Spent, machine: Machine, ran_on: Machine | None = None) -> float:
    """Hours that the work of a run takes on a machine.

    What is known is how many cores it kept busy. On a machine with fewer it takes longer in proportion, on one with
    more it takes as long as it did; `speed` says how fast a core is beside one of the machine that it ran on.
    """
    hours = spent.wall_s / 3600
    if ran_on is not None and machine.name == ran_on.name:
        return hours
    if machine.cores and spent.busy > machine.cores:
        hours *= spent.busy / machine.cores
    return hours / machine.speed * (1.0 if ran_on is None else ran_on.speed)


def cost_on(
    spent: Spent,
    machine: Machine,
    *,
    ran_on: Machine | None = None,
    shared: bool = False,
) -> Money:
    """What a run costs on a machine: the whole of it for as long as it takes, or the share of its cores.

    Args:
        spent: what it took.
        machine: on which it is to be.
        ran_on: on which it was, where that is known.
        shared: other runs work there too, so that only the cores that it keeps busy count.
    """
    cost = machine.hour() * hours_on(spent, machine, ran_on)
    if shared and machine.cores and spent.busy:
        cost = cost * min(1.0, spent.busy / machine.cores)
    return cost


def total(costs: Sequence[Money], of: Machine) -> Money:
    """The sum."""
    found = (of.per_hour if isinstance(of, Rented) else of.price) * 0.0
    for cost in costs:
        found = found + cost
    return found
