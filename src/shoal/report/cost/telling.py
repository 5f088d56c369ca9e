"""Telling: costs as text, for a terminal, a panel and a page."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from rich.table import Table

from shoal.report.cost.compared import machine_of, priced
from shoal.report.cost.forecast import duration
from shoal.report.cost.machines import Owned, Rented, said_of_break_even
from shoal.report.cost.prices import configured
from shoal.report.cost.spent import LOST, cost_on, spent_by
from shoal.report.run_table import as_text, console
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from shoal.report.cost.compared import Costs
    from shoal.report.cost.money import Money
    from shoal.report.cost.prices import Prices
    from shoal.run.directory import RunDirectory

RUNS = ("run", "env", "algo", "seed", "state", "hours", "cores busy", "cost")
PLACES = ("machine", "an hour", "hours", "cost", "beside here")
NUMBERS = ("seed", "hours", "cores busy", "cost", "an hour", "beside here")


def print_costs(costs: Costs, prices: Prices) -> None:
    """What runs cost, what came of it, and where it would be cheaper."""
    here = costs.here
    rows = [
        (
            printable(one.run.path.name),
            one.env,
            one.algo,
            str(one.seed),
            one.state,
            f"{one.wall_s / 3600:.3g}",
            f"{one.busy:.2g} of {one.cores}" if one.busy else "-",
            str(cost),
        )
        for one, cost in zip(costs.spent, costs.costs, strict=True)
    ]
    console().print(_table(RUNS, rows))
    print(f"\non {printable(here.name)}, {here.hour()} an hour: {_whole(costs)}")
    for sentence in _results(costs):
        print(sentence)
    for wrong in costs.unread:
        print(f"not counted: {printable(wrong, 300)}")
    for going in costs.going:
        name = printable(going.spent.run.path.name)
        told = f"{name}: {going.ahead.said()}"
        if not going.ahead.reached and going.ahead.likely_s < float("inf"):
            told += f"; that would cost {going.likely} more"
        print(told)
    print()
    rows = [
        (
            place.machine.name,
            str(place.machine.hour()),
            f"{place.hours:.3g}",
            str(place.cost),
            f"{place.cost.over(costs.whole):.2f}x",
        )
        for place in costs.places
    ]
    console().print(_table(PLACES, rows))
    for sentence in (*_break_evens(costs), *_caveats(costs, prices)):
        print(sentence)


def _table(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        justify = "right" if name in NUMBERS else "left"
        table.add_column(name, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*as_text(row))
    return table


def _whole(costs: Costs) -> str:
    count = len(costs.spent)
    runs = "1 run" if count == 1 else f"{count} runs"
    hours = sum(one.wall_s for one in costs.spent) / 3600
    return f"{runs}, {hours:.3g} hours, {costs.whole}"


def _results(costs: Costs) -> list[str]:
    """What the money came to."""
    told: list[str] = []
    lost = [one for one in costs.spent if one.state in LOST]
    if lost:
        told.append(
            f"{len(lost)} of them failed or were interrupted, which took {costs.lost} of it"
        )
    if costs.per_result is not None:
        told.append(
            f"{costs.results} met the threshold: {costs.per_result} for each, failures included"
        )
    elif any(one.reached is False for one in costs.spent):
        told.append("none met its threshold")
    return told


def _break_evens(costs: Costs) -> list[str]:
    """From which use on buying is cheaper than renting."""
    owned = [p for p in costs.places if isinstance(p.machine, Owned)]
    rented = [p for p in costs.places if isinstance(p.machine, Rented)]
    told: list[str] = []
    for own in owned:
        for other in rented:
            if not (
                isinstance(own.machine, Owned) and isinstance(other.machine, Rented)
            ):
                continue
            factor = other.hours / own.hours if own.hours else 1.0
            told.append(said_of_break_even(own.machine, other.machine, factor=factor))
    return ["", *told] if told else []


def _caveats(costs: Costs, prices: Prices) -> list[str]:
    """What the figures do not say."""
    told = ["", f"prices: {printable(prices.path)}, {prices.source}, {prices.date}"]
    for currency, names in costs.left_out.items():
        told.append(f"left out, as [rates] has none for {currency}: {', '.join(names)}")
    if any(one.elsewhere for one in costs.spent):
        told.append(
            "environments or actors on other machines are not in it: their hours are not known here"
        )
    if any(not one.busy for one in costs.spent):
        told.append(
            "some runs are of an earlier version, which noted no processor seconds: their hours are those of training"
        )
    told.append(
        "hours elsewhere are those here, longer where cores are fewer, by `speed` where a table has it: measure before "
        "deciding"
    )
    return told


def hour_here() -> Money | None:
    """What an hour on this machine costs by the user's own prices; None where there are none, or they do not say."""
    prices = configured()
    if prices is None:
        return None
    try:
        here = prices.of_host(platform.node())
        return None if here is None else priced(here, prices).hour()
    except ConfigError:
        return None


def cost_line(run: RunDirectory) -> str:
    """The cost of one run in a line, by the user's own prices; empty where there are none, or they do not say."""
    prices = configured()
    if prices is None:
        return ""
    try:
        spent = spent_by(run)
        here = priced(machine_of(spent, prices), prices)
    except (ValueError, OSError):
        return ""
    cost = cost_on(spent, here, ran_on=here)
    held = duration(spent.wall_s)
    return f"{cost} ({held} on {printable(here.name)}, prices of {prices.date})"
