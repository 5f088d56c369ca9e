"""Money: amounts as a person reads them, in the currency that a price table is in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

WITHOUT_DECIMALS = ("JPY", "KRW", "VND", "CLP", "ISK", "XAF", "XOF")
"""Currencies that have no smaller coin."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in a currency. Two of different currencies are never added or compared without a rate."""

    amount: float
    currency: str

    def __str__(self) -> str:
        """`1,234.50 USD`, `1,235 JPY`; a part of the smallest coin with two digits, `0.0042 USD`."""
        digits = 0 if self.currency in WITHOUT_DECIMALS else 2
        smallest = 10.0**-digits
        if 0 < abs(self.amount) < smallest:
            return f"{self.amount:.2g} {self.currency}"
        return f"{self.amount:,.{digits}f} {self.currency}"

    def __add__(self, other: Money) -> Money:
        """The sum; ConfigError where they are of different currencies."""
        self._check(other)
        return Money(self.amount + other.amount, self.currency)

    def __mul__(self, factor: float) -> Money:
        """So many times as much."""
        return Money(self.amount * factor, self.currency)

    def over(self, other: Money) -> float:
        """How many times the other one it is; infinite where that is nothing."""
        self._check(other)
        return self.amount / other.amount if other.amount else float("inf")

    def into(self, currency: str, rates: Mapping[str, float]) -> Money:
        """The same in another currency.

        Args:
            currency: that one.
            rates: what one unit of each other currency is worth in it.

        Raises:
            ConfigError: no rate is known.
        """
        if currency == self.currency:
            return self
        if self.currency not in rates:
            raise ConfigError(
                f"prices are in {self.currency} and in {currency}, which are not compared without a rate: write what "
                f"one {self.currency} is worth in {currency} into the price table, under [rates]: {self.currency} = ..."
            )
        return Money(self.amount * rates[self.currency], currency)

    def _check(self, other: Money) -> None:
        if other.currency != self.currency:
            raise ConfigError(
                f"{self} and {other} are of different currencies; a price table's [rates] make them one"
            )
