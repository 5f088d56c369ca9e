"""Price tables: TOML files that say what machines cost, since when, and where that is from."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from shoal.report.cost.machines import Machine, Owned, Rented
from shoal.report.cost.money import Money
from shoal.run.reading import read_toml
from shoal.types import ConfigError
from shoal.types.arguments import path_of

if TYPE_CHECKING:
    from collections.abc import Mapping

BUNDLED = Path(__file__).with_name("prices.toml")
"""List prices of a few well-known machines, which are to be checked before anybody pays by them."""
VARIABLE = "SHOAL_PRICES"
"""The environment variable that names the user's own table."""
TOP = ("date", "source", "currency", "default", "rates", "machines")
COMMON = ("currency", "cores", "speed", "hosts", "date", "source")
RENTED = ("per_hour",)
OWNED = ("price", "years", "hours_per_month", "watts", "per_kwh")
MOST = 1e15
RATE = (1e-9, MOST, "")
BOUNDS: dict[str, tuple[float, float, str]] = {
    "per_hour": (0, MOST, ""),
    "price": (0, MOST, ""),
    "per_kwh": (0, MOST, ""),
    "watts": (0, 1e7, ", of one machine"),
    "years": (1e-3, 100, ", after which a machine is worth nothing"),
    "hours_per_month": (1e-3, 744, ", as the longest month has"),
    "cores": (0, 1e6, ", of one machine"),
    "speed": (1e-3, 1000, ", beside a core of the machine that runs are made on"),
}
"""The least and the greatest that a number of a machine can be, and why."""


@dataclass(frozen=True, slots=True)
class Prices:
    """A price table."""

    path: Path
    currency: str
    machines: dict[str, Machine]
    date: str = ""
    source: str = ""
    default: str = ""
    """The machine that runs are made on, where none is named."""
    rates: dict[str, float] = field(default_factory=dict)
    """What one unit of another currency is worth in this table's."""
    hosts: dict[str, str] = field(default_factory=dict)
    """Machines by the host names of those that are of their kind."""

    def machine(self, name: str) -> Machine:
        """The machine of a name; ConfigError, with the names that there are, where there is none."""
        if name in self.machines:
            return self.machines[name]
        near = get_close_matches(name, self.machines, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        there = ", ".join(sorted(self.machines)) or "none"
        raise ConfigError(
            f"no machine {name!r} in the price table {self.path}; {hint}it has {there}"
        )

    def of_host(self, host: str) -> Machine | None:
        """The machine that a host is; else the one that is meant by default; None where the table does not say."""
        name = self.hosts.get(host, self.default)
        return self.machine(name) if name else None

    def beside(self, other: Prices) -> Prices:
        """This table and, where it has none of a name, the machines of another one."""
        return replace(
            self,
            machines=other.machines | self.machines,
            rates=other.rates | self.rates
            if other.currency == self.currency
            else self.rates,
        )


def own_path() -> Path | None:
    """The user's own table: what SHOAL_PRICES names, or prices.toml in the folder of their settings; None without."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    path = Path(config).expanduser() / "shoal" / "prices.toml"
    return path if path.exists() else None


def find_prices(path: str | Path | None = None) -> Prices:
    """The table at `path`, else the user's own; the bundled machines stand beside it.

    Raises:
        ConfigError: it is missing or damaged.
    """
    bundled = read_prices(BUNDLED)
    own = own_path() if path is None else path_of("path", path)
    return bundled if own is None else read_prices(own).beside(bundled)


def configured() -> Prices | None:
    """The user's own table, if there is one that can be read: whoever shows costs beside other things asks no more."""
    try:
        return None if own_path() is None else find_prices()
    except ConfigError:
        return None


def read_prices(path: Path) -> Prices:
    """A table; ConfigError says what is wrong with it, and where."""
    saved = read_toml(path)
    _check_names(path, "", saved, TOP)
    currency = _text(path, saved, "currency")
    machines = saved.get("machines", {})
    if not isinstance(machines, dict) or not machines:
        raise ConfigError(
            f"{path}: there are no machines; write them as [machines.NAME]"
        )
    table = Prices(
        path,
        currency,
        {},
        date=_date(path, saved, "date"),
        source=_text(path, saved, "source"),
        default=_text(path, saved, "default") if "default" in saved else "",
    )
    for name, given in cast("dict[str, Any]", machines).items():
        if not isinstance(given, dict):
            raise ConfigError(f"{path}: machines.{name} is no table")
        own = cast("dict[str, Any]", given)
        table.machines[name] = _machine(table, name, own)
        for host in _hosts(path, f"machines.{name}.hosts", own.get("hosts", [])):
            if table.hosts.setdefault(host, name) != name:
                raise ConfigError(
                    f"{path}: the host {host!r} is of {table.hosts[host]} and of {name}; name it once"
                )
    rates = saved.get("rates", {})
    if not isinstance(rates, dict):
        raise ConfigError(f"{path}: rates is no table; write it as [rates]")
    for code, worth in cast("dict[str, Any]", rates).items():
        if code == currency and worth != 1:
            raise ConfigError(
                f"{path}: rates.{code} says what one {code} is worth in {code}, the table's own currency; leave it out"
            )
        table.rates[code] = _number(path, f"rates.{code}", worth)
    if table.default:
        table.machine(table.default)
    return table


def _machine(table: Prices, name: str, given: Mapping[str, Any]) -> Machine:
    """One machine: rented where it has a price per hour, else owned."""
    path, where = table.path, f"machines.{name}"
    currency, source = (
        _text(path, given, key, f"{where}.") if key in given else getattr(table, key)
        for key in ("currency", "source")
    )
    date = _date(path, given, "date", where) if "date" in given else table.date
    said = f"{source}, {date}"
    rented = "per_hour" in given
    _check_names(path, f"{where}.", given, (*COMMON, *(RENTED if rented else OWNED)))

    def number(key: str, default: float | None = None) -> float:
        if key not in given and default is not None:
            return default
        if key not in given:
            other = (
                "per_hour alone (rented)" if not rented else "price, years, ... (owned)"
            )
            raise ConfigError(f"{path}: {where} has no {key}; or give it {other}")
        return _number(path, f"{where}.{key}", given[key])

    cores, speed = number("cores", 0.0), number("speed", 1.0)
    if rented:
        price = Money(number("per_hour"), currency)
        return Rented(name, price, cores, speed, said)
    return Owned(
        name,
        Money(number("price"), currency),
        number("years"),
        number("hours_per_month"),
        number("watts"),
        Money(number("per_kwh"), currency),
        cores,
        speed,
        said,
    )


def _check_names(
    path: Path, where: str, given: Mapping[str, Any], known: tuple[str, ...]
) -> None:
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{path}: no setting {where}{name}; {hint}")


def _number(path: Path, where: str, value: object) -> float:
    """A number within what its setting can be; a rate of currencies is above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{path}: {where} must be a number, got {value!r}")
    low, high, why = BOUNDS.get(where.rpartition(".")[2], RATE)
    if where.startswith("rates."):
        low, high, why = RATE
    if not low <= value <= high:
        said = "at least 0" if not low else "above 0"
        most = "" if high == MOST else f" and at most {high:,.0f}{why}"
        raise ConfigError(f"{path}: {where} must be {said}{most}, got {value!r}")
    return float(value)


def _hosts(path: Path, where: str, value: object) -> list[str]:
    listed = cast("list[object]", value) if isinstance(value, list) else [None]
    names = [one for one in listed if isinstance(one, str) and one]
    if len(names) < len(listed):
        raise ConfigError(
            f'{path}: {where} must be names of hosts, such as ["trainer1"], got {value!r}'
        )
    return names


def _text(path: Path, saved: Mapping[str, Any], name: str, where: str = "") -> str:
    value = saved.get(name)
    if name not in saved or value == "":
        raise ConfigError(
            f'{path}: it has no {where}{name}; a price table says its date, source and currency, such as {name} = "..."'
        )
    if not isinstance(value, str):
        raise ConfigError(f"{path}: {where}{name} must be a text, got {value!r}")
    return value


def _date(path: Path, saved: Mapping[str, Any], name: str, where: str = "") -> str:
    value = saved.get(name)
    if isinstance(value, str):
        try:
            value = datetime.date.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime.date):
        place = f"{where}.{name}" if where else name
        raise ConfigError(
            f"{path}: {place} must say of when the prices are, such as 2026-06-17"
        )
    return value.isoformat()
