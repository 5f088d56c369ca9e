"""What runs cost in money, by the price table that `shoal cost` goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.report.cost.compared import costs_of
from shoal.report.cost.prices import find_prices
from shoal.report.signed.content import Table, Text
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.report.signed.content import Block
    from shoal.report.signed.gather import Told
    from shoal.report.signed.words import Words

MOST_PLACES = 8


def money(told: Sequence[Told], words: Words) -> list[Block]:
    """A sentence of what all runs cost, and a table of other machines; or that no price is known for theirs."""
    try:
        costs = costs_of([one.run for one in told], find_prices())
    except ConfigError:  # no such machine, or a damaged table: `shoal cost` says which
        return [Text(words("no_prices"))]
    parts = {"machine": costs.here.name, "money": costs.whole, "lost": costs.lost}
    blocks: list[Block] = [Text(words("money", **parts))]
    if costs.per_result is not None:
        blocks.append(Text(words("money_each", money=costs.per_result)))
    rows = [
        (place.machine.name, f"{place.hours:.3g}", str(place.cost))
        for place in costs.places[:MOST_PLACES]
    ]
    titles = [words(name) for name in ("machine", "hours", "money_column")]
    return [*blocks, Table(rows, titles)] if rows else blocks
