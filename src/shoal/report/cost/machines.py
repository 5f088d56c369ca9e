"""Machines: what an hour of one costs, whether it is owned or rented, and when owning is the cheaper way."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from shoal.report.cost.money import Money

HOURS_PER_MONTH = 730.0
"""365 · 24 / 12."""


@dataclass(frozen=True, slots=True)
class Rented:
    """A machine that is paid for by the hour."""

    name: str
    per_hour: Money
    cores: float = 0.0
    """Of its processor; 0: not known."""
    speed: float = 1.0
    """How fast a core is beside one of the machine that a run was made on; 1: as fast."""
    said: str = ""
    """Where its price is from, and of when."""

    def hour(self) -> Money:
        """What an hour in which it is held costs."""
        return self.per_hour


@dataclass(frozen=True, slots=True)
class Owned:
    """A machine that was bought: it loses its value over the years, and takes power while it works."""

    name: str
    price: Money
    """That it was bought for."""
    years: float
    """After which it is worth nothing."""
    hours_per_month: float
    """In which it works: its price is shared out among them."""
    watts: float
    """That it takes while it works."""
    per_kwh: Money
    cores: float = 0.0
    speed: float = 1.0
    said: str = ""

    def hour(self) -> Money:
        """What an hour in which it works costs: its share of the price, and power."""
        return self.month() * (1 / self.hours_per_month) + self.power()

    def month(self) -> Money:
        """What it loses in value in a month, whether it works or not."""
        return self.price * (1 / (self.years * 12))

    def power(self) -> Money:
        """What the power of an hour costs."""
        return self.per_kwh * (self.watts / 1000)


Machine = Rented | Owned


def break_even_hours(own: Owned, rented: Rented, *, factor: float = 1.0) -> float:
    """Hours of work a month from which on owning is cheaper: value lost in a month / (rent − power) of an hour.

    Args:
        own: the machine that is bought.
        rented: what would be rented in its place, priced in the same currency.
        factor: hours that the rented one takes for the work of an hour of the own one.

    Returns:
        Hours; infinite where renting costs less an hour than power alone.
    """
    saved = rented.per_hour * factor + own.power() * -1
    if saved.amount <= 0:
        return inf
    return own.month().over(saved)


def said_of_break_even(own: Owned, rented: Rented, *, factor: float = 1.0) -> str:
    """In a sentence."""
    hours = break_even_hours(own, rented, factor=factor)
    beside = f"{own.name} against {rented.name}"
    if hours == inf:
        return f"{beside}: renting is always cheaper, as an hour of it costs less than the power of an own hour"
    if hours > HOURS_PER_MONTH:
        return (
            f"{beside}: renting is always cheaper; buying would pay from {hours:,.0f} hours of work a month, and a "
            f"month has {HOURS_PER_MONTH:.0f}"
        )
    share = hours / HOURS_PER_MONTH
    now = "buying" if own.hours_per_month > hours else "renting"
    return (
        f"{beside}: buying pays from {hours:,.0f} hours of work a month ({100 * share:.0f} % of the time); with the "
        f"{own.hours_per_month:,.0f} hours of the table, {now} is cheaper"
    )
