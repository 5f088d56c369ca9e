"""What a person sees of a run: a live panel in a terminal, plain lines elsewhere, or JSON. Each is a callback."""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shoal.run.callbacks import EpisodeEnd
from shoal.types import ConfigError
from shoal.types.arguments import string_of
from shoal.types.text import decimal, printable, printable_lines, without_colors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.run.callbacks import Record
    from shoal.run.run import Run


class Outcome(Protocol):
    """What `finish` needs of a run's result."""

    @property
    def path(self) -> Path:
        """The run directory."""
        ...

    @property
    def steps(self) -> int:
        """Environment steps."""
        ...

    @property
    def seconds(self) -> float:
        """Seconds of training."""
        ...

    @property
    def greedy_return(self) -> float:
        """Mean return of the greedy episodes; NaN where none were played."""
        ...

    @property
    def greedy_cost(self) -> float:
        """Mean cost of the greedy episodes; NaN where steps have none."""
        ...

    @property
    def greedy_cost_worst(self) -> float:
        """Of the costliest of them."""
        ...

    @property
    def cost_limit(self) -> float | None:
        """What an episode may cost on average, if that was learned."""
        ...

    @property
    def greedy_episodes(self) -> int:
        """How many there were to play."""
        ...

    @property
    def mean_return(self) -> float:
        """Mean return of training's last episodes."""
        ...

    @property
    def threshold(self) -> float | None:
        """The return to reach, if there is one."""
        ...

    @property
    def solved(self) -> bool:
        """Whether it was reached."""
        ...

    @property
    def bottleneck(self) -> str:
        """What the run waited for, and which setting would move it; may be empty."""
        ...


class Panel(Protocol):
    """A callback that shows the progress of a run."""

    def __call__(self, run: Run, record: Record, /) -> None:
        """Shows a line of metrics."""
        ...

    def warn(self, message: str) -> None:
        """Shows a warning; may be called from a signal handler."""
        ...

    def note(self, message: str) -> None:
        """Shows what is no trouble; may be called from another thread."""
        ...

    def finish(self, result: Outcome) -> None:
        """Shows the figure that is quoted."""
        ...

    def close(self) -> None:
        """Leaves the terminal as it was; calling it again does nothing."""
        ...


class Plain:
    """A line every few seconds."""

    episodes = False

    def __init__(self, every_s: float = 2.0) -> None:
        """`every_s`: seconds between lines."""
        self.every_s = every_s
        self._last = -math.inf
        self._greedy: float | None = None
        self._cost: float | None = None
        self._held_out: float | None = None

    def __call__(self, run: Run, record: Record, /) -> None:
        """Prints step, return and speed."""
        if isinstance(record, EpisodeEnd):
            return
        self._greedy = record.get("eval/return", self._greedy)
        self._cost = record.get("eval/cost", self._cost)
        self._held_out = held_out_in(run, record, self._held_out)
        now = time.monotonic()
        if now - self._last >= self.every_s:
            self._last = now
            line = progress_line(record, self._greedy, self._held_out, cost=self._cost)
            print(line, flush=True)

    def warn(self, message: str) -> None:
        """Prints to stderr."""
        print_warning(message)

    def note(self, message: str) -> None:
        """Prints to stdout."""
        print(printable_lines(message), flush=True)

    def finish(self, result: Outcome) -> None:
        """Prints the figure that is quoted."""
        print(result_line(result), flush=True)
        if result.bottleneck:
            print(result.bottleneck, flush=True)

    def close(self) -> None:
        """Nothing to do."""


class Json:
    """Each record as a JSON line on stdout; numbers that are not finite become null, as in metrics.jsonl."""

    episodes = False

    def __call__(self, run: Run, record: Record, /) -> None:
        """Prints the record."""
        if not isinstance(record, EpisodeEnd):
            self._print(record)

    def warn(self, message: str) -> None:
        """Prints {"warning": message}."""
        self._print({"warning": message})

    def note(self, message: str) -> None:
        """Prints {"note": message}."""
        self._print({"note": message})

    def finish(self, result: Outcome) -> None:
        """Prints the figure that is quoted."""
        said: dict[str, object] = {
            "greedy_return": result.greedy_return,
            "threshold": result.threshold,
            "solved": result.solved,
            "steps": result.steps,
            "seconds": result.seconds,
            "run": str(result.path),
            "bottleneck": result.bottleneck,
        }
        if not math.isnan(result.greedy_cost):
            said["greedy_cost"] = result.greedy_cost
            said["greedy_cost_worst"] = result.greedy_cost_worst
            said["cost_limit"] = result.cost_limit
        self._print(said)

    def close(self) -> None:
        """Nothing to do."""

    def _print(self, record: Mapping[str, object]) -> None:
        clean = dict(record)
        for name, value in record.items():
            if isinstance(value, float) and not math.isfinite(value):
                clean[name] = None
        print(json.dumps(clean), flush=True)


class Silent:
    """Nothing but warnings, as Python's own."""

    episodes = False

    def __call__(self, run: Run, record: Record, /) -> None:
        """Shows nothing."""

    def warn(self, message: str) -> None:
        """A UserWarning."""
        warnings.warn(printable_lines(without_colors(message)), stacklevel=2)

    def note(self, message: str) -> None:
        """Shows nothing."""

    def finish(self, result: Outcome) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Nothing to do."""


def panel_of(kind: str) -> Panel:
    """The panel of a name: auto (live in a terminal, else plain), live, plain, json or none.

    Raises:
        ConfigError: another name.
    """
    from shoal.report.live import Live

    kind = string_of("panel", kind)
    kinds: dict[str, Callable[[], Panel]] = {
        "live": Live,
        "plain": Plain,
        "json": Json,
        "none": Silent,
    }
    if kind == "auto":
        kind = "live" if sys.stdout.isatty() else "plain"
    if kind not in kinds:
        raise ConfigError(f"no panel {kind!r}; there are auto, {', '.join(kinds)}")
    return kinds[kind]()


def held_out_in(
    run: Run, record: Mapping[str, float], before: float | None
) -> float | None:
    """The held-out value of a line, or the one before; None where there is none."""
    name = run.settings.held_out
    return record.get(f"info/{name}", before) if name else None


def progress_line(
    record: Mapping[str, float],
    greedy: float | None = None,
    held_out: float | None = None,
    *,
    cost: float | None = None,
) -> str:
    """One line of where a run stands.

    Args:
        record: a line of metrics.
        greedy: the last mean return of an evaluation beside training.
        held_out: the last mean of what nothing is learned from.
        cost: the last mean cost of an evaluation's episodes.
    """
    mean = record.get("episode/return")
    shown = "-" if mean is None else decimal(mean)
    speed = record["speed/sps"]
    line = f"step {record['step']:>10,}  return {shown:>8}  {speed:>12,.0f} steps/s"
    if acted := record.get("guard/interventions"):
        line += f"  the guard acted {acted:,.0f} times"
    if held_out is not None:
        line += f"  held out {held_out:.3g}"
    if (spent := record.get("info/cost")) is not None:
        line += f"  cost {spent:.4g}"
    if greedy is not None:
        line += f"  greedy return {decimal(greedy):>8}"
    return line if cost is None else f"{line}  greedy cost {cost:.4g}"


def result_line(result: Outcome) -> str:
    """The figure that is quoted, and what it cost."""
    bar = ""
    if result.threshold is not None:
        met = "met" if result.solved else "missed"
        bar = f" (threshold {result.threshold:g} {met})"
    spent = f"{result.steps:,} steps, {result.seconds:.1f} s"
    figure = f"greedy return {decimal(result.greedy_return)} over {result.greedy_episodes} episodes"
    if math.isnan(result.greedy_return):
        figure = "no greedy return"
        if math.isfinite(result.mean_return):
            figure += f", mean return {decimal(result.mean_return)}"
    where, here = Path(result.path), Path.cwd()
    if where.is_relative_to(here):
        where = where.relative_to(here)
    return f"{figure}{bar}{_cost(result)}, {spent}: {printable(where)}"


def _cost(result: Outcome) -> str:
    """What a greedy episode cost, beside the limit on it; nothing where steps have no cost."""
    if math.isnan(result.greedy_cost):
        return ""
    said = f", greedy cost {result.greedy_cost:.4g} an episode, at worst {result.greedy_cost_worst:.4g}"
    if result.cost_limit is None:
        return said
    met = "met" if result.greedy_cost <= result.cost_limit else "missed"
    return f"{said} (limit {result.cost_limit:g} {met})"


def print_warning(message: str) -> None:
    """A warning on stderr."""
    plain = printable_lines(without_colors(message))
    print(f"warning: {plain}", file=sys.stderr, flush=True)
