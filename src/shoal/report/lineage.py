"""Lineage: which agents of a population took over from which others, as the lines of a run tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal.run.records import read_metrics
from shoal.types.text import decimal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shoal.run.directory import RunDirectory

PARENT = "population/parent/"
BEFORE = "/before"


@dataclass(frozen=True, slots=True)
class Takeover:
    """An agent that took over weights, optimizer and settings of another one."""

    step: int
    child: str
    parent: str
    child_return: float
    """Mean greedy return, which was compared with the parent's."""
    parent_return: float
    settings: Mapping[str, tuple[float, float]]
    """Each varied setting before and after."""

    def __str__(self) -> str:
        """One line."""
        changes = ", ".join(
            f"{name} {old:.3g} -> {new:.3g}"
            for name, (old, new) in self.settings.items()
        )
        return (
            f"step {self.step:,}: {self.child} ({decimal(self.child_return)}) took over from {self.parent} "
            f"({decimal(self.parent_return)}): {changes}"
        )


def takeovers_of(lines: Iterable[Mapping[str, Any]]) -> list[Takeover]:
    """All of a run's, by the lines of its metrics; what a damaged line lacks is NaN."""
    found: list[Takeover] = []
    for line in lines:
        children = [key.removeprefix(PARENT) for key in line if key.startswith(PARENT)]
        for child in children:
            parent = f"agent{int(_number(line, f'{PARENT}{child}'))}"
            own = f"/{child}{BEFORE}"
            named = [key for key in line if key.endswith(own)]
            settings = {
                key.removeprefix("population/").removesuffix(own): (
                    _number(line, key),
                    _number(line, key.removesuffix(BEFORE)),
                )
                for key in named
            }
            found.append(
                Takeover(
                    int(line["step"]),
                    child,
                    parent,
                    _number(line, f"population/return/{child}"),
                    _number(line, f"population/return/{parent}"),
                    settings,
                )
            )
    return found


def lineage_of(run: RunDirectory, *, most: int | None) -> list[str]:
    """What is to be said of a run's population: who is kept, and the last `most` takeovers; empty without one.

    Raises:
        ValueError: the run's records are damaged.
    """
    population = run.read_config().get("population", {})
    if not isinstance(population, dict) or not population.get("exploit_interval"):
        return []
    found = takeovers_of(read_metrics(run.metrics).lines)
    kept = run.read_status().get("kept")
    count = "1 takeover" if len(found) == 1 else f"{len(found)} takeovers"
    said = [f"{count}, {kept} is kept" if kept else count]
    shown = found if most is None else found[-most:]
    if len(shown) < len(found):
        said.append(f"({len(found) - len(shown)} before; --lineage shows all)")
    return said + [str(takeover) for takeover in shown]


def _number(line: Mapping[str, Any], name: str) -> float:
    value = line.get(name)
    return float("nan") if value is None else float(value)
