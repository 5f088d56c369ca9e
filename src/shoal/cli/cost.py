"""`shoal cost`: what runs cost, and where they would be cheaper."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from shoal.cli.arguments import parse


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `cost`."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN")]
    """Run directories, names of runs, or directories of runs (all below them count: a sweep, seeds, failures)."""
    run_dir: str = "runs"
    """Directory in which runs are searched for as well."""
    prices: str | None = None
    """Price table (TOML); else SHOAL_PRICES, else ~/.config/shoal/prices.toml, else the bundled one."""
    machine: str | None = None
    """The machine of the table that the runs were made on; else the one that it has for their host, or by default."""
    against: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MACHINE ...")] = field(
        default=()
    )
    """Machines that it is compared with; else all of the table."""
    shared: bool = False
    """Count the share of a machine's cores that a run keeps busy, not the whole machine: others work there too."""


def main(arguments: list[str], about: str) -> int:
    """Prints; the exit status."""
    given = parse(Given, arguments, command="cost", about=about)
    from shoal.report.cost.compared import costs_of
    from shoal.report.cost.prices import find_prices
    from shoal.report.cost.telling import print_costs
    from shoal.run.directory import find_all
    from shoal.types import ConfigError

    if not given.runs:
        raise ConfigError("name at least one run, or a folder of runs: shoal cost runs")
    prices = find_prices(given.prices)
    found = {
        run.path.resolve(): run
        for name in given.runs
        for run in find_all(name, Path(given.run_dir))
    }
    costs = costs_of(
        list(found.values()),
        prices,
        ran_on=given.machine,
        against=given.against,
        shared=given.shared,
    )
    print_costs(costs, prices)
    return 0
