"""Timelines: who did what when in a run's last updates, as a picture and as Chrome's trace format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Patch

from shoal.report.curves import blank, plain_style
from shoal.stream.spans import KINDS
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from shoal.run.traces import Trace, Traces

WORDS = {
    "environment": "stepping",
    "acting": "acting",
    "learning": "learning",
    "waiting": "waiting",
    "transfer": "transfer",
    "publishing": "publishing",
    "saving": "saving",
    "evaluation": "evaluating",
}
"""What a process does, in words."""
COLORS = {
    "environment": "tab:green",
    "acting": "tab:blue",
    "learning": "tab:orange",
    "waiting": "0.87",
    "transfer": "tab:purple",
    "publishing": "tab:red",
    "saving": "tab:brown",
    "evaluation": "tab:olive",
}
MOST_DRAWN = 20_000
"""Spans in a picture; of more, those of the last updates, and the longest of these."""
MOST_LANES = 64
WIDTH, LANE, AROUND = 11.0, 0.42, 1.5
"""Inches: of the picture, of each process, and of what stands around them."""


def trace_events(traces: Traces) -> Iterator[dict[str, Any]]:
    """The timeline as Chrome's trace events: names and order of processes, then a complete event a span."""
    for number, trace in enumerate(traces.processes):
        place = {"pid": number, "tid": 0}
        said = trace.name if not trace.pid else f"{trace.name} (pid {trace.pid})"
        about: dict[str, dict[str, Any]] = {
            "process_name": {"name": said},
            "thread_name": {"name": trace.name},
            "process_sort_index": {"sort_index": number},
        }
        for what, arguments in about.items():
            yield {"ph": "M", "name": what, **place, "args": arguments}
        rows = zip(trace.spans.tolist(), trace.updates.tolist(), strict=True)
        for (kind, begun, ended), update in rows:
            name = KINDS[int(kind)]
            yield {
                "ph": "X",
                "name": WORDS[name],
                "cat": name,
                **place,
                "ts": round(begun * 1e6),
                "dur": round((ended - begun) * 1e6),
                "args": {"update": update},
            }


def trace_bytes(traces: Traces, title: str) -> bytes:
    """The timeline in Chrome's trace event format, which ui.perfetto.dev and chrome://tracing open."""
    about = {"title": title, "updates": f"{traces.first} to {traces.last}"}
    head = json.dumps({"displayTimeUnit": "ms", "otherData": about})
    # One event after another: as objects all of them would fill the memory.
    events = ",\n".join(json.dumps(event) for event in trace_events(traces))
    return f'{head[:-1]}, "traceEvents": [\n{events}\n]}}\n'.encode()


@plain_style()
def draw_timeline(traces: Traces, title: str) -> Figure:
    """A lane for each process, and in it what it did when."""
    shown = traces.processes[:MOST_LANES]
    first = _first_drawn(shown)
    if first > traces.first:
        title = f"{title}, updates {first:,} to {traces.last:,}"
    left_out = len(traces.processes) - len(shown)
    if left_out:
        title = f"{title} ({left_out:,} more processes are in the trace)"
    figure = blank(WIDTH, AROUND + LANE * len(shown))
    axes = figure.add_subplot()
    kinds: set[int] = set()
    since = _since(shown, first, traces.begun_s)
    for lane, trace in enumerate(shown):
        spans = trace.spans[trace.updates >= first]
        spans = _longest(spans, MOST_DRAWN // len(shown))
        for kind in _inner_last(spans):
            own = spans[spans[:, 0] == kind]
            starts, lengths = own[:, 1] - since, own[:, 2] - own[:, 1]
            _draw(axes, lane, starts, lengths, COLORS[KINDS[kind]])
            kinds.add(kind)
    axes.set(title=printable(title, 120), xlabel="seconds")
    axes.set_yticks(range(len(shown)), [trace.name for trace in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.margins(x=0.005)
    handles = [
        Patch(color=COLORS[KINDS[kind]], label=WORDS[KINDS[kind]])
        for kind in sorted(kinds)
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=8, fontsize="small"
        )
    return figure


def _first_drawn(shown: Sequence[Trace]) -> int:
    """The update from which on there are at most `MOST_DRAWN` spans; at least the last one's are drawn."""
    numbers = np.sort(np.concatenate([trace.updates for trace in shown]))[::-1]
    if len(numbers) <= MOST_DRAWN:
        return int(numbers[-1]) if len(numbers) else 0
    return min(int(numbers[MOST_DRAWN]) + 1, int(numbers[0]))


def _longest(spans: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """So many of the spans, the longest: of a lane with more, the others are no wider than a line."""
    if len(spans) <= most:
        return spans
    lengths = spans[:, 2] - spans[:, 1]
    kept = np.argpartition(-lengths, most)[:most]
    return spans[np.sort(kept)]


def _since(shown: Sequence[Trace], first: int, begun_s: float) -> float:
    """When the first span that is drawn began."""
    found = [trace.spans[trace.updates >= first, 1] for trace in shown]
    starts = np.concatenate(found)
    return float(starts.min()) if len(starts) else begun_s


def _inner_last(spans: NDArray[np.float64]) -> list[int]:
    """The kinds of these spans, those that lie within others last, so that they are drawn over them."""
    kinds = {int(kind) for kind in spans[:, 0]}
    return sorted(kinds, key=lambda kind: KINDS[kind] == "publishing")


def _draw(
    axes: Axes,
    lane: int,
    starts: NDArray[np.float64],
    lengths: NDArray[np.float64],
    color: str,
) -> None:
    bars = list(zip(starts.tolist(), lengths.tolist(), strict=True))
    axes.broken_barh(bars, (lane - 0.4, 0.8), facecolors=color, linewidth=0)


def busy_lines(traces: Traces) -> list[str]:
    """What each process did, in shares of the time, and how busy the cores were, as lines of text."""
    used = [
        kind
        for kind in KINDS
        if any(trace.seconds[kind] > 0 for trace in traces.processes)
    ]
    head = ["process", "busy", "cpu", *(WORDS[kind] for kind in used)]
    rows = [head]
    for trace in traces.processes:
        seconds, elapsed_s = trace.seconds, _elapsed(trace)
        busy_s = elapsed_s - seconds["waiting"]
        row = [
            printable(trace.name),
            _percent(busy_s / elapsed_s),
            f"{trace.cpu_s / traces.elapsed_s:.2f}",
        ]
        rows.append([*row, *(_percent(seconds[kind] / elapsed_s) for kind in used)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    own_s = sum(trace.cpu_s for trace in traces.processes)
    lines.append(core_line(traces.core_s, traces.elapsed_s, own_s))
    return [*lines, *_notes(traces)]


def core_line(core_s: Mapping[int, float], elapsed_s: float, own_s: float) -> str:
    """How busy the cores were, by whatever runs on the machine, and with how much of it by these processes.

    Args:
        core_s: by core: seconds in which it was busy.
        elapsed_s: in how many.
        own_s: processor seconds of the processes.
    """
    shares = [min(1.0, busy / elapsed_s) for busy in core_s.values()]
    if not shares:
        return "cores: unknown"
    mean = sum(shares) / len(shares)
    said = f"cores: {_percent(mean)} busy"
    if 1 < len(shares) <= 16:
        each = ", ".join(
            f"{core}: {_percent(x)}" for core, x in zip(core_s, shares, strict=True)
        )
        said = f"{said} ({each})"
    own = _percent(own_s / (elapsed_s * len(shares)))
    return f"{said}, whatever with; {own} by these processes"


def _notes(traces: Traces) -> list[str]:
    notes: list[str] = []
    for trace in traces.processes:
        name = printable(trace.name)
        if trace.left_out:
            notes.append(
                f"{name}: {trace.left_out:,} more spans were not recorded; the shares are of those that were"
            )
        if trace.clock_error_s > 1e-3:
            known = np.isfinite(trace.clock_error_s)
            off = (
                f"up to {trace.clock_error_s:.3g} s"
                if known
                else "nobody knows how far"
            )
            notes.append(f"{name}: on another machine; its times may be off, {off}")
    return notes


def _elapsed(trace: Trace) -> float:
    """From a process's first span to its last."""
    if not len(trace.spans):
        return 1e-9
    return max(float(trace.spans[:, 2].max() - trace.spans[0, 1]), 1e-9)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
