"""`shoal fleet`: what runs on fleets, their logs, and their end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from shoal.cli.arguments import parse
from shoal.cli.statuses import MET, MISSED
from shoal.types import ConfigError
from shoal.types.text import printable_lines

NOTHING = "no fleet runs here; shoal train ENV --fleet local starts one"
COLUMNS = ("part", "what", "address", "node", "pid", "restarts", "up")


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `fleet`."""

    what: Annotated[
        tyro.conf.Positional[Literal["status", "logs", "stop"]],
        tyro.conf.arg(metavar="{status,logs,stop}"),
    ]
    """status: servers and trainings, with their environments, addresses and restarts; logs: their last lines; stop:
    ends them, after a checkpoint where the learner is on this machine."""
    fleet: str | None = None
    """The cluster: auto or ray://HOST:PORT; default: those of the learners that run on this machine."""
    lines: int = 10
    """Lines of each log."""


def main(arguments: list[str], about: str) -> int:
    """Shows or ends; the exit status is 1 where nothing runs."""
    given = parse(Given, arguments, command="fleet", about=about)
    from shoal.fleet.settings import check_where

    if given.fleet is not None:
        check_where(given.fleet)
    if given.lines < 1:
        raise ConfigError(f"--lines must be at least 1, got {given.lines}")
    shown = {"status": _status, "logs": _logs, "stop": _stop}[given.what](given)
    if not shown:
        print(NOTHING if given.fleet is None else f"no fleet runs on {given.fleet}")
    return MET if shown else MISSED


def _status(given: Given) -> bool:
    from rich.table import Table

    from shoal.fleet.control import clusters, parts
    from shoal.fleet.records import records
    from shoal.report.run_table import as_text, console

    told = {record.name: record for record in records()}
    rows: list[list[str]] = []
    for cluster in clusters(given.fleet):
        for part in parts(cluster):
            about = part.about
            cells = ["no answer", "", "", "", "", ""]
            if about is not None:
                cells = [
                    about.what,
                    about.address,
                    about.node,
                    str(about.pid),
                    str(about.restarts),
                    f"{about.seconds:,.0f} s",
                ]
            rows.append([f"{part.fleet}/{part.name}", *cells])
    if not rows:
        return False
    for name in dict.fromkeys(row[0].partition("/")[0] for row in rows):
        if name in told:
            record = told[name]
            print(f"fleet {name}: {record.what}, learner {record.learner}")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*as_text(row))
    console().print(table)
    return True


def _logs(given: Given) -> bool:
    from shoal.fleet.control import clusters, logs

    found = [
        log for cluster in clusters(given.fleet) for log in logs(cluster, given.lines)
    ]
    for name, lines in found:
        print(f"{name}:")
        for line in lines:
            print(f"  {printable_lines(line)}")
    return bool(found)


def _stop(given: Given) -> bool:
    from shoal.fleet.control import stop

    said = stop(given.fleet)
    for sentence in said:
        print(printable_lines(sentence))
    return bool(said)
