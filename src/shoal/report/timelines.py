"""What `shoal timeline` writes into a run directory, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from shoal.envs.registry import are_native, are_simulated, backend_of
from shoal.report.curves import png
from shoal.report.timeline import busy_lines, draw_timeline, trace_bytes
from shoal.run.bottleneck import Engine, Spent, bottleneck
from shoal.run.drafts import write_atomic
from shoal.run.origin import AGENTS
from shoal.run.records import read_metrics
from shoal.run.traces import read_traces
from shoal.stream.meter import cores
from shoal.types.text import printable

if TYPE_CHECKING:
    from shoal.run.directory import RunDirectory
    from shoal.run.origin import Origin

DPI = 110


def write_timeline(run: RunDirectory) -> list[str]:
    """Writes timeline.json, in Chrome's trace format, and timeline.png into the run directory; what is to be said.

    Raises:
        ConfigError: no run directory, one without a timeline, or a damaged one.
    """
    config = run.read_config()
    traces = read_traces(run.timeline)
    named = [printable(config.get(name), 60) for name in ("algo", "env", "seed")]
    title = "{} on {}, seed {}".format(*named)
    trace, picture = run.path / "timeline.json", run.path / "timeline.png"
    write_atomic(trace, trace_bytes(traces, title))
    write_atomic(picture, png(draw_timeline(traces, title), dpi=DPI))
    said = [
        f"updates {traces.first:,} to {traces.last:,}, {traces.elapsed_s:.3g} s",
        *busy_lines(traces),
    ]
    if sentence := said_of(run, config):
        said.append(sentence)
    said += [str(picture), f"{trace} (ui.perfetto.dev opens it)"]
    return said


def said_of(run: RunDirectory, config: Mapping[str, Any]) -> str:
    """The bottleneck of a run by its metrics; empty where they do not tell."""
    spent = Spent.of_lines(read_metrics(run.metrics).lines)
    if spent is None:
        return ""
    return bottleneck(spent, engine_of(config, run.read_origin()))


def engine_of(config: Mapping[str, Any], origin: Origin | None = None) -> Engine:
    """How a run collected, by its configuration and its origin; what is no setting there counts as not said."""
    kinds = {"schedule": str, "backend": str}
    kinds |= dict.fromkeys(
        ("max_staleness", "actors", "num_envs", "num_threads", "num_workers"), int
    )
    found: dict[str, Any] = {"cores": cores()}
    for name, kind in kinds.items():
        value = config.get(name)
        if isinstance(value, kind) and not isinstance(value, bool):
            found[name] = value
    env, backend = config.get("env"), found.get("backend", "auto")
    if are_native(env, backend) or are_simulated(env, backend):
        found["backend"] = "native"
    else:
        found["backend"] = backend_of(env, backend)
    found["several_agents"] = origin is not None and origin.unexplained == AGENTS
    table: object = config.get("algorithm")
    own = cast("Mapping[str, Any]", table) if isinstance(table, Mapping) else {}
    found["replay"] = "replay" in own
    found["task"] = "num_generations" in own
    if isinstance(passes := own.get("num_iterations"), int):
        found["passes"] = passes
    found["num_threads"] = found.get("num_threads") or min(4, cores())
    return Engine(**found)
