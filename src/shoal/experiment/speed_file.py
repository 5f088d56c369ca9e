"""The file of `shoal tune-speed`: a configuration that `train` reads, with what was measured above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tomli_w

from shoal.experiment.tuning import with_twice_the_cores
from shoal.run.drafts import write_atomic
from shoal.run.reading import CONFIG_BYTES, DamagedError, read_bytes
from shoal.stream.meter import cores
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.experiment.experiment import Experiment
    from shoal.experiment.tuning import Row, Tuned

FIRST = "# Settings for speed, measured by shoal tune-speed"
ASSUMED = (
    "if acting and stepping were divided among them, and all else took as long as now"
)


def check_free(path: Path) -> None:
    """ConfigError where a file of another kind stands in the way, or the folder is not there."""
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path} cannot be written: there is no such folder")
    try:
        there = read_bytes(path, at_most=CONFIG_BYTES, links=True)
    except FileNotFoundError:
        return
    except DamagedError as error:
        raise ConfigError(f"{error}; name another file: --out") from error
    if not there.startswith(FIRST.encode()):
        raise ConfigError(
            f"{path} is there, and tune-speed did not write it; name another file: --out"
        )


def write_speed_file(path: Path, experiment: Experiment, tuned: Tuned) -> None:
    """Writes the whole configuration with the fastest settings.

    Raises:
        OSError: it cannot be written.
    """
    best = experiment.changed(**tuned.best.changes)
    head = [FIRST, *(f"# {line}" for line in table_of(tuned))]
    text = "\n".join(head) + "\n" + tomli_w.dumps(best.to_file())
    write_atomic(path, text.encode())


def table_of(tuned: Tuned) -> list[str]:
    """What was measured, a line each, and what twice the cores would bring."""
    names = [printable(row.name, 80) for row in tuned.rows]
    width = max(map(len, ("settings", *names)))
    before = tuned.rows[0].steps_per_s
    lines = [f"{'settings':<{width}}  {'steps/s':>12}  against now"]
    for name, row in zip(names, tuned.rows, strict=True):
        lines.append(f"{name:<{width}}  {_figures(row, before, tuned)}")
    if tuned.unmeasured:
        lines.append(f"there was no time for {tuned.unmeasured} more")
    best = tuned.best
    if best.probed is not None:
        twice = with_twice_the_cores(best.probed, best.steps_per_s)
        lines.append(
            f"on {2 * cores()} cores instead of {cores()}: about {_rounded(twice)} steps/s, an estimate, {ASSUMED}"
        )
    return lines


def _figures(row: Row, before: float, tuned: Tuned) -> str:
    if row.probed is None:
        return f"{'-':>12}  {printable(row.error, 160)}"
    said = f"{_rounded(row.steps_per_s):>12}  {row.steps_per_s / before:.2f} x"
    if row is tuned.best:
        said += "  chosen"
    if row.error:
        said += f"  then {printable(row.error, 160)}"
    return said


def _rounded(rate: float) -> str:
    """A rate in three digits."""
    return f"{float(f'{rate:.3g}'):,.0f}" if rate >= 1 else f"{rate:.3g}"
