"""Compared: the cost of runs where they were made, what the same work costs elsewhere, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from shoal.report.cost.forecast import forecast
from shoal.report.cost.machines import Owned, Rented
from shoal.report.cost.spent import LOST, cost_on, hours_on, spent_by, total
from shoal.run.records import read_metrics
from shoal.run.status import GOING
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.report.cost.forecast import Forecast
    from shoal.report.cost.machines import Machine
    from shoal.report.cost.money import Money
    from shoal.report.cost.prices import Prices
    from shoal.report.cost.spent import Spent
    from shoal.run.directory import RunDirectory


@dataclass(frozen=True, slots=True)
class Going:
    """A run that goes on: what it may take yet."""

    spent: Spent
    ahead: Forecast
    per_hour: Money

    @property
    def likely(self) -> Money:
        """What it costs until its threshold is reached, as likely as not."""
        return self.per_hour * (self.ahead.likely_s / 3600)


@dataclass(frozen=True, slots=True)
class Place:
    """What the same work takes on a machine."""

    machine: Machine
    hours: float
    cost: Money


@dataclass(slots=True)
class Costs:
    """Of some runs."""

    here: Machine
    """Where they were made."""
    spent: list[Spent]
    costs: list[Money]
    """Of each."""
    whole: Money
    lost: Money
    """Of those that came to nothing."""
    results: int
    """Runs that met their threshold."""
    places: list[Place]
    going: list[Going] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Machines in currencies for which no rate is known."""
    unread: list[str] = field(default_factory=list)
    """What is wrong with runs that are not counted, as they cannot be read."""

    @property
    def per_result(self) -> Money | None:
        """What all runs together cost, failures included, for each that met its threshold; None where none did."""
        return self.whole * (1 / self.results) if self.results else None


def costs_of(
    runs: Sequence[RunDirectory],
    prices: Prices,
    *,
    ran_on: str | None = None,
    against: Sequence[str] = (),
    shared: bool = False,
) -> Costs:
    """What runs cost by a price table.

    Args:
        runs: at least one.
        prices: the table.
        ran_on: the machine that they were made on; else the one that the table has for their host, or by default.
        against: machines that they are compared with, beside the one that they were made on; none: all of the table.
        shared: whether machines do other work too, so that only the cores count that runs keep busy.

    Raises:
        ConfigError: the table has no such machine, does not say which one it was, or has no rate for its currency; or
            no run can be read.
    """
    spent, unread = _read(runs)
    machines = [machine_of(one, prices, ran_on) for one in spent]
    costs = [
        _cost(one, machine, prices, ran_on=machine, shared=shared)
        for one, machine in zip(spent, machines, strict=True)
    ]
    here = priced(machines[0], prices)
    whole = total(costs, here)
    lost = [c for one, c in zip(spent, costs, strict=True) if one.state in LOST]
    found = Costs(
        here,
        spent,
        costs,
        whole,
        total(lost, here),
        sum(one.reached is True for one in spent),
        [],
    )
    for name in _compared_with(here, against, prices):
        machine = prices.machine(name)
        if not (against or _has_rate(machine, prices)):
            found.left_out.setdefault(_currency(machine), []).append(name)
            continue
        each = [
            _cost(one, machine, prices, ran_on=own, shared=shared)
            for one, own in zip(spent, machines, strict=True)
        ]
        hours = sum(
            hours_on(one, machine, own)
            for one, own in zip(spent, machines, strict=True)
        )
        found.places.append(
            Place(priced(machine, prices), hours, total(each, priced(machine, prices)))
        )
    found.places.sort(key=lambda place: place.cost.amount)
    found.going = _going(spent, machines, prices)
    found.unread = unread
    return found


def _compared_with(
    here: Machine, against: Sequence[str], prices: Prices
) -> Sequence[str]:
    """The machines that are named, with the one here, without which nothing is compared; else all of the table."""
    if not against:
        return sorted(prices.machines)
    return list(dict.fromkeys((here.name, *against)))


def _read(runs: Sequence[RunDirectory]) -> tuple[list[Spent], list[str]]:
    """What runs took, and what is wrong with those that cannot be read; ConfigError where all are so."""
    spent: list[Spent] = []
    unread: list[str] = []
    for run in runs:
        try:
            spent.append(spent_by(run))
        except ConfigError as error:
            unread.append(str(error))
    if not spent:
        raise ConfigError("; ".join(unread[:3]) or "there is no run")
    return spent, unread


def machine_of(spent: Spent, prices: Prices, named: str | None = None) -> Machine:
    """The machine that a run was made on; ConfigError where the table does not say which one that is."""
    if named is not None:
        return prices.machine(named)
    found = prices.of_host(spent.host)
    if found is None:
        there = ", ".join(sorted(prices.machines))
        raise ConfigError(
            f"{spent.run.path} ran on the host {spent.host or '(unknown)'}, and the price table {prices.path} does not "
            f"say what that is: name its machine by --machine; or write a table of your own, with hosts = [...] of a "
            f"machine or default = ..., and give it as --prices FILE (docs/cost.md); it has {there}"
        )
    return found


def _cost(
    spent: Spent,
    machine: Machine,
    prices: Prices,
    *,
    ran_on: Machine,
    shared: bool,
) -> Money:
    return cost_on(spent, priced(machine, prices), ran_on=ran_on, shared=shared)


def priced(machine: Machine, prices: Prices) -> Machine:
    """The machine with its prices in the table's currency."""
    to, rates = prices.currency, prices.rates
    if isinstance(machine, Rented):
        price = machine.per_hour.into(to, rates)
        return Rented(machine.name, price, machine.cores, machine.speed, machine.said)
    return Owned(
        machine.name,
        machine.price.into(to, rates),
        machine.years,
        machine.hours_per_month,
        machine.watts,
        machine.per_kwh.into(to, rates),
        machine.cores,
        machine.speed,
        machine.said,
    )


def _currency(machine: Machine) -> str:
    price = machine.per_hour if isinstance(machine, Rented) else machine.price
    return price.currency


def _has_rate(machine: Machine, prices: Prices) -> bool:
    return _currency(machine) in (prices.currency, *prices.rates)


def _going(
    spent: Sequence[Spent], machines: Sequence[Machine], prices: Prices
) -> list[Going]:
    """What runs that go on may take yet."""
    found: list[Going] = []
    for one, machine in zip(spent, machines, strict=True):
        if one.state not in GOING:
            continue
        ahead = forecast_of(one.run)
        if ahead is not None:
            found.append(Going(one, ahead, priced(machine, prices).hour()))
    return found


def forecast_of(run: RunDirectory) -> Forecast | None:
    """When a run may reach its threshold; None where it has none, or says too little yet."""
    config, status = run.read_config(), run.read_status()
    threshold = _number(config.get("stop_at", status.get("threshold")))
    total_steps = _number(config.get("total_timesteps"))
    if threshold is None or total_steps is None:
        return None
    return forecast(read_metrics(run.metrics).lines, threshold, int(total_steps))


def _number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isfinite(value) else None
