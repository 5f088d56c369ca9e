"""The live panel: a run's figures redrawn in place in a terminal, without a thread of its own."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.panel import Panel as RichPanel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shoal.report.cost.telling import hour_here
from shoal.report.panel import (
    held_out_in,
    print_warning,
    progress_line,
    result_line,
)
from shoal.report.tokens import is_of_language, token_rows
from shoal.run.callbacks import EpisodeEnd
from shoal.stream.meter import ACTIVITIES, cores, gpu_use
from shoal.types.text import decimal, printable, without_colors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shoal.report.panel import Outcome
    from shoal.run.callbacks import Record
    from shoal.run.run import Run
    from shoal.run.settings import Settings

REFRESHES_PER_S = 8
COST_LIMIT = 0.02
"""The share of the run's time that drawing may take."""
SHOWN_WARNINGS = 4
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 24
HISTORY = 2000
LOSSES_A_LINE = 3
SHOWN_CORES = 4


class Live:
    """A panel redrawn in place, without a thread of its own; it is gone at the end and leaves a summary."""

    episodes = False

    def __init__(self, console: Console | None = None) -> None:
        """The panel appears with the first record."""
        self._console = console or Console()
        self._live: RichLive | None = None
        self._first: Mapping[str, float] = {}
        self._last: Mapping[str, float] = {}
        self._returns: deque[float] = deque(maxlen=HISTORY)
        self._greedy: float | None = None
        self._cost: float | None = None
        self._held_out: float | None = None
        self._warnings: Counter[str] = Counter()
        self._next = -math.inf
        self._hour = hour_here()
        """What an hour on this machine costs, where a price table says it."""

    def __call__(self, run: Run, record: Record, /) -> None:
        """Keeps the record; draws it when the last drawing is long enough ago, at most COST_LIMIT of the time."""
        if isinstance(record, EpisodeEnd):
            return
        self._last = record
        self._greedy = record.get("eval/return", self._greedy)
        self._cost = record.get("eval/cost", self._cost)
        self._held_out = held_out_in(run, record, self._held_out)
        mean = record.get("episode/return")
        if mean is not None:
            self._returns.append(mean)
        begun = time.monotonic()
        if begun < self._next:
            return
        if self._live is None:
            self._first = record
            self._live = RichLive(
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._live.start()
        self._live.update(self.draw(run), refresh=True)
        ended = time.monotonic()
        self._next = ended + max(1 / REFRESHES_PER_S, (ended - begun) / COST_LIMIT)

    def draw(self, run: Run) -> RenderableType:
        """The whole panel of the newest record."""
        record = self._last
        settings = run.settings
        both = Table.grid(padding=(0, 4))
        both.add_row(self._figures(run), time_bars(shares(self._first, record)))
        parts: list[RenderableType] = [
            _progress(self._first, record, settings),
            "",
            both,
            *_losses(record),
        ]
        for message, count in list(self._warnings.items())[-SHOWN_WARNINGS:]:
            said = printable(without_colors(_counted(message, count)))
            parts.append(Text(f"! {said}", style="yellow"))
        what = printable(f"{settings.env} · {settings.algo}", 80)
        return RichPanel(
            Group(*parts),
            title=Text.assemble(
                ("shoal", "bold"),
                f"  {what} · seed {settings.seed} · {settings.device}",
            ),
            title_align="left",
            border_style="dim",
            width=min(self._console.width, 100),
        )

    def warn(self, message: str) -> None:
        """Adds to the panel at its next drawing, which is then due; without a panel, prints to stderr."""
        if self._live is None:
            print_warning(message)
            return
        count = self._warnings.pop(message, 0)
        self._warnings[message] = count + 1
        self._next = -math.inf

    def note(self, message: str) -> None:
        """Prints a line; the panel is not there yet, or redraws itself below."""
        self._console.print(Text(message, style="dim"), soft_wrap=True)

    def finish(self, result: Outcome) -> None:
        """Closes the panel and prints the figure that is quoted."""
        self.close()
        color = "green" if result.solved else "yellow"
        self._console.print(Text(result_line(result), style=color), soft_wrap=True)
        if result.bottleneck:
            self._console.print(Text(result.bottleneck, style="dim"), soft_wrap=True)

    def close(self) -> None:
        """Clears the panel; leaves the last line of progress and, on stderr, the warnings."""
        if self._live is None:
            return
        self._live.stop()
        self._live = None
        line = progress_line(self._last, self._greedy, self._held_out, cost=self._cost)
        self._console.print(Text(line), soft_wrap=True)
        for message, count in self._warnings.items():
            print_warning(_counted(message, count))
        self._warnings.clear()

    def _figures(self, run: Run) -> Table:
        record = self._last
        settings = run.settings
        table = Table.grid(padding=(0, 2))
        counted = "answers" if is_of_language(record) else "steps"
        table.add_row("speed", f"{record['speed/sps']:,.0f} {counted}/s")
        table.add_row("episodes", f"{record['episode/count']:,}")
        mean = record.get("episode/return")
        table.add_row("return", _return(mean, settings.stop_at))
        table.add_row("", Text(sparkline(self._returns, SPARK_WIDTH), style="cyan"))
        if self._greedy is not None:  # a policy that explores shows less than it can
            table.add_row("greedy", decimal(self._greedy))
        if (spent := record.get("info/cost")) is not None:
            table.add_row("episode's cost", f"{spent:.4g}")
        if self._cost is not None:
            table.add_row("greedy cost", f"{self._cost:.4g}")
        if self._held_out is not None:
            table.add_row("held out", f"{self._held_out:.3g}")
        if is_of_language(record):
            for row in token_rows(record, settings):
                table.add_row(*row)
        if acted := record.get("guard/interventions"):
            table.add_row("guard", Text(f"acted {acted:,.0f} times", style="yellow"))
        table.add_row("CPU", f"{run.meter.cpu_cores():.1f} of {cores()} cores")
        table.add_row("cores", core_shares_line(run.meter.core_shares()))
        if self._hour is not None:
            table.add_row("cost", str(self._hour * (run.usage.wall_s / 3600)))
        if settings.device.startswith("cuda"):
            table.add_row("GPU", gpu_use(settings.device))
        return table


def core_shares_line(shares: Sequence[float]) -> str:
    """How busy each core was, by whatever runs there: of many cores the mean and the least."""
    shown = [f"{100 * share:.0f} %" for share in shares]
    if len(shown) <= SHOWN_CORES:
        return f"{' '.join(shown)} busy"
    mean = sum(shares) / len(shares)
    return f"{100 * mean:.0f} % busy, the least {100 * min(shares):.0f} %"


def sparkline(values: Iterable[float], width: int) -> str:
    """The values as at most `width` bars, each the mean of an equal part; the lowest is ▁, the highest █."""
    finite = [value for value in values if math.isfinite(value)]
    parts = min(width, len(finite))
    if not parts:
        return ""
    edges = [len(finite) * part // parts for part in range(parts + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((mean - low) * scale)] for mean in means)


def shares(first: Mapping[str, float], last: Mapping[str, float]) -> dict[str, float]:
    """The part of the time from one record to another that each activity took; waiting is the remainder.

    Before there is a second record, the parts of the time since the run's start.
    """
    if first is last:
        first = {}
    spent: dict[str, float] = {}
    for name in ACTIVITIES:
        key = f"time/{name}"
        spent[name] = last.get(key, 0.0) - first.get(key, 0.0)
    elapsed = last["time/elapsed"] - first.get("time/elapsed", 0.0)
    measured = sum(spent.values()) - spent["waiting"]
    spent["waiting"] = max(0.0, elapsed - measured)
    total = max(sum(spent.values()), 1e-9)
    return {name: seconds / total for name, seconds in spent.items()}


def _progress(
    first: Mapping[str, float],
    record: Mapping[str, float],
    settings: Settings,
) -> RenderableType:
    """How far the run is: in environment steps, or in updates where it takes no step."""
    counted, total = "step", settings.total_timesteps
    if not total:
        counted, total = "update", settings.data.updates
    done = record[counted]
    seconds = record["time/elapsed"] - first["time/elapsed"]
    speed = record["speed/sps"]
    if seconds > 0:
        speed = (done - first[counted]) / seconds
    left_s = max(0, total - done) / max(speed, 1e-9)
    row = Table.grid(padding=(0, 2))
    row.add_row(
        ProgressBar(total=total, completed=min(done, total), width=32),
        f"{done:,} of {total:,} {counted}s",
        f"{100 * min(1.0, done / total):.0f} %",
        f"{clock(left_s)} left",
    )
    return row


def _return(mean: float | None, stop_at: float | None) -> str:
    shown = "-" if mean is None else decimal(mean)
    if stop_at is None or math.isinf(stop_at):
        return shown
    return f"{shown}, stops at {stop_at:g}"


def time_bars(parts: Mapping[str, float]) -> RenderableType:
    """A bar for the share of each activity."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    for name, share in parts.items():
        bar = Bar(1.0, 0.0, share, width=16, color="blue")
        table.add_row(name, bar, f"{100 * share:.0f} %")
    return table


def _losses(record: Mapping[str, float]) -> Sequence[RenderableType]:
    cells: list[Text] = []
    for key, value in record.items():
        group, _, name = key.partition("/")
        if group == "loss":
            said = (printable(name, 40), "dim")
            cells.append(Text.assemble(said, f" {value:.4g}"))
    if not cells:
        return []
    table = Table.grid(padding=(0, 3))
    for at in range(0, len(cells), LOSSES_A_LINE):
        table.add_row(*cells[at : at + LOSSES_A_LINE])
    return ["", table]


def clock(seconds: float) -> str:
    """Seconds as minutes or hours: 1:05, 1:00:05."""
    if seconds >= 100 * 3600:
        return "days"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours}:{minutes:02d}:{whole % 60:02d}"
    return f"{minutes}:{whole % 60:02d}"


def _counted(message: str, count: int) -> str:
    return message if count == 1 else f"{message} (×{count})"
