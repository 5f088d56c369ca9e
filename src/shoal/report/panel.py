"""What a person sees of a run: a live panel in a terminal, plain lines elsewhere, or JSON."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter, deque
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.panel import Panel as RichPanel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shoal.stream.meter import ACTIVITIES, cores, gpu_use
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from shoal.run.run import Run

REFRESHES_PER_S = 8
COST_LIMIT = 0.02
"""The share of the run's time that drawing may take."""
SHOWN_WARNINGS = 4
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 24
HISTORY = 2000


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
        """Mean return of 100 greedy episodes."""
        ...

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        ...

    @property
    def threshold(self) -> float | None:
        """The return to reach, if there is one."""
        ...

    @property
    def solved(self) -> bool:
        """Whether it was reached."""
        ...


class Panel(Protocol):
    """Shows the progress of a run."""

    def __call__(self, run: Run, record: dict[str, Any]) -> None:
        """Shows a line of metrics."""
        ...

    def warn(self, message: str) -> None:
        """Shows a warning; may be called from a signal handler."""
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
        self.every_s, self._last = every_s, -math.inf

    def __call__(self, run: Run, record: dict[str, Any]) -> None:
        """Prints step, return and speed."""
        now = time.monotonic()
        if now - self._last >= self.every_s:
            self._last = now
            print(progress_line(record), flush=True)

    def warn(self, message: str) -> None:
        """Prints to stderr."""
        _warn(message)

    def finish(self, result: Outcome) -> None:
        """Prints the figure that is quoted."""
        print(result_line(result), flush=True)

    def close(self) -> None:
        """Nothing to do."""


class Json:
    """Each record as a JSON line on stdout; numbers that are not finite become null, as in metrics.jsonl."""

    episodes = False

    def __call__(self, run: Run, record: dict[str, Any]) -> None:
        """Prints the record."""
        self._print(record)

    def warn(self, message: str) -> None:
        """Prints {"warning": message}."""
        self._print({"warning": message})

    def finish(self, result: Outcome) -> None:
        """Prints the figure that is quoted."""
        self._print(
            {
                "greedy_return": result.greedy_return,
                "threshold": result.threshold,
                "solved": result.solved,
                "steps": result.steps,
                "seconds": result.seconds,
                "run": str(result.path),
            }
        )

    def close(self) -> None:
        """Nothing to do."""

    def _print(self, record: dict[str, Any]) -> None:
        clean = {
            k: (None if isinstance(v, float) and not math.isfinite(v) else v)
            for k, v in record.items()
        }
        print(json.dumps(clean), flush=True)


class Silent:
    """Nothing but warnings."""

    episodes = False

    def __call__(self, run: Run, record: dict[str, Any]) -> None:
        """Shows nothing."""

    def warn(self, message: str) -> None:
        """Prints to stderr."""
        _warn(message)

    def finish(self, result: Outcome) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Nothing to do."""


class Live:
    """A panel redrawn in place, without a thread of its own; it is gone at the end and leaves a summary."""

    episodes = False

    def __init__(self, console: Console | None = None) -> None:
        """The panel appears with the first record."""
        self._console = console or Console()
        self._live: RichLive | None = None
        self._first: dict[str, Any] = {}
        self._last: dict[str, Any] = {}
        self._returns: deque[float] = deque(maxlen=HISTORY)
        self._warnings: Counter[str] = Counter()
        self._next = -math.inf

    def __call__(self, run: Run, record: dict[str, Any]) -> None:
        """Keeps the record; draws it when the last drawing is long enough ago, at most COST_LIMIT of the time."""
        self._last = record
        if (mean := record.get("episode/return")) is not None:
            self._returns.append(mean)
        begun = time.monotonic()
        if begun < self._next:
            return
        if self._live is None:
            self._first = record
            self._live = RichLive(
                console=self._console, auto_refresh=False, transient=True
            )
            self._live.start()
        self._live.update(self.draw(run), refresh=True)
        ended = time.monotonic()
        self._next = ended + max(1 / REFRESHES_PER_S, (ended - begun) / COST_LIMIT)

    def draw(self, run: Run) -> RenderableType:
        """The whole panel of the newest record."""
        record, s = self._last, run.settings
        left = Table.grid(padding=(0, 2))
        left.add_row("speed", f"{record['speed/sps']:,.0f} steps/s")
        left.add_row("episodes", f"{record['episode/count']:,}")
        left.add_row("return", _return(record.get("episode/return"), s.stop_at))
        left.add_row("", Text(sparkline(self._returns, SPARK_WIDTH), style="cyan"))
        left.add_row("CPU", f"{run.meter.cpu_cores():.1f} of {cores()} cores")
        if s.device.startswith("cuda"):
            left.add_row("GPU", gpu_use(s.device))
        both = Table.grid(padding=(0, 4))
        both.add_row(left, _time_bars(shares(self._first, record)))
        title = f"[bold]shoal[/]  {s.env} · {s.algo} · seed {s.seed} · {s.device}"
        parts = [
            _progress(self._first, record, s.total_timesteps),
            "",
            both,
            *_losses(record),
        ]
        recent = list(self._warnings.items())[-SHOWN_WARNINGS:]
        parts += [Text(f"! {_counted(*warning)}", style="yellow") for warning in recent]
        return RichPanel(
            Group(*parts),
            title=title,
            title_align="left",
            border_style="dim",
            width=self._width(),
        )

    def warn(self, message: str) -> None:
        """Adds to the panel at its next drawing, which is then due; without a panel, prints to stderr."""
        if self._live is None:
            _warn(message)
            return
        count = self._warnings.pop(message, 0)
        self._warnings[message] = count + 1
        self._next = -math.inf

    def finish(self, result: Outcome) -> None:
        """Closes the panel and prints the figure that is quoted."""
        self.close()
        self._console.print(
            Text(result_line(result), style="green" if result.solved else "yellow"),
            soft_wrap=True,
        )

    def close(self) -> None:
        """Clears the panel; leaves the last line of progress and, on stderr, the warnings."""
        if self._live is None:
            return
        self._live.stop()
        self._live = None
        self._console.print(Text(progress_line(self._last)), soft_wrap=True)
        for message, count in self._warnings.items():
            _warn(_counted(message, count))
        self._warnings.clear()

    def _width(self) -> int:
        return min(self._console.width, 100)


def panel_of(kind: str) -> Panel:
    """The panel of a name: auto (live in a terminal, else plain), live, plain, json or none.

    Raises:
        ConfigError: another name.
    """
    kinds: dict[str, Callable[[], Panel]] = {
        "live": Live,
        "plain": Plain,
        "json": Json,
        "none": Silent,
    }
    if kind == "auto":
        return Live() if sys.stdout.isatty() else Plain()
    if kind not in kinds:
        raise ConfigError(f"no panel {kind!r}; there are auto, {', '.join(kinds)}")
    return kinds[kind]()


def progress_line(record: dict[str, Any]) -> str:
    """One line of where a run stands."""
    mean = record.get("episode/return")
    shown = "-" if mean is None else f"{mean:.1f}"
    return f"step {record['step']:>10,}  return {shown:>8}  {record['speed/sps']:>12,.0f} steps/s"


def result_line(result: Outcome) -> str:
    """The figure that is quoted, and what it cost."""
    bar = (
        ""
        if result.threshold is None
        else f" (threshold {result.threshold:g} {'met' if result.solved else 'missed'})"
    )
    cost = f"{result.steps:,} steps, {result.seconds:.1f} s"
    return f"greedy return {result.greedy_return:.1f} over 100 episodes{bar}, {cost}: {result.path}"


def sparkline(values: Iterable[float], width: int) -> str:
    """The values as at most `width` bars, each the mean of an equal part; the lowest is ▁, the highest █."""
    finite = [v for v in values if math.isfinite(v)]
    parts = min(width, len(finite))
    edges = [len(finite) * i // parts for i in range(parts + 1)] if parts else [0]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((mean - low) * scale)] for mean in means)


def shares(first: dict[str, Any], last: dict[str, Any]) -> dict[str, float]:
    """The part of the time from one record to another that each activity took; waiting is the remainder.

    Before there is a second record, the parts of the time since the run's start.
    """
    if first is last:
        first = {}
    spent = {
        name: last.get(f"time/{name}", 0.0) - first.get(f"time/{name}", 0.0)
        for name in ACTIVITIES
    }
    elapsed = last["time/elapsed"] - first.get("time/elapsed", 0.0)
    spent["waiting"] = max(
        0.0,
        elapsed - sum(seconds for name, seconds in spent.items() if name != "waiting"),
    )
    total = max(sum(spent.values()), 1e-9)
    return {name: seconds / total for name, seconds in spent.items()}


def _progress(
    first: dict[str, Any], record: dict[str, Any], total: int
) -> RenderableType:
    step = record["step"]
    seconds = record["time/elapsed"] - first["time/elapsed"]
    speed = (step - first["step"]) / seconds if seconds > 0 else record["speed/sps"]
    left_s = max(0, total - step) / max(speed, 1e-9)
    row = Table.grid(padding=(0, 2))
    row.add_row(
        ProgressBar(total=total, completed=min(step, total), width=32),
        f"{step:,} of {total:,} steps",
        f"{100 * min(1.0, step / total):.0f} %",
        f"{_clock(left_s)} left",
    )
    return row


def _return(mean: float | None, stop_at: float | None) -> str:
    shown = "-" if mean is None else f"{mean:.1f}"
    return (
        shown
        if stop_at is None or math.isinf(stop_at)
        else f"{shown}, stops at {stop_at:g}"
    )


def _time_bars(parts: dict[str, float]) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    for name, share in parts.items():
        table.add_row(
            name, Bar(1.0, 0.0, share, width=16, color="blue"), f"{100 * share:.0f} %"
        )
    return table


def _losses(record: dict[str, Any]) -> Sequence[RenderableType]:
    losses = {
        name.partition("/")[2]: value
        for name, value in record.items()
        if name.startswith("loss/")
    }
    if not losses:
        return []
    cells = [
        f"[dim]{name}[/] {math.nan if value is None else value:.4g}"
        for name, value in losses.items()
    ]
    table = Table.grid(padding=(0, 3))
    for at in range(0, len(cells), 3):
        table.add_row(*cells[at : at + 3])
    return ["", table]


def _clock(seconds: float) -> str:
    if seconds >= 100 * 3600:
        return "days"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return (
        f"{hours}:{minutes:02d}:{whole % 60:02d}"
        if hours
        else f"{minutes}:{whole % 60:02d}"
    )


def _counted(message: str, count: int) -> str:
    return message if count == 1 else f"{message} (×{count})"


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)
