"""Timelines: recorded, written, read back; what a stranger's file holds is refused in a sentence."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shoal.experiment.training import train
from shoal.report.timeline import busy_lines, draw_timeline, trace_bytes
from shoal.report.timelines import engine_of, write_timeline
from shoal.run.directory import RunDirectory
from shoal.run.timeline import Recorder
from shoal.run.traces import own_seconds, read_traces
from shoal.stream.meter import Meter
from shoal.stream.spans import KINDS, Heard, Recorded
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

HEAD = json.dumps({"timeline": 1, "kinds": list(KINDS)})
UPDATE = json.dumps({"update": 7, "begun": 0, "ended": 4_000_000, "cores": {"0": 3_000_000, "1": 1_000_000}})
SMALL: dict[str, Any] = {"num_envs": 2, "num_steps": 16, "num_minibatches": 1, "update_epochs": 1}


def line(**changes: Any) -> str:
    """A learner that waits a second and learns for three, in which it publishes for half a second."""
    spans = [[3, 0, 1_000_000], [2, 1_000_000, 4_000_000], [5, 3_500_000, 4_000_000]]
    whole = {"process": "learner", "pid": 12, "cpu": 2_000_000, "left_out": 0, "clock_error": 0, "spans": spans}
    return json.dumps(whole | changes)


def written(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{one}\n" for one in lines))
    return path


def test_own_seconds() -> None:
    """A span's time is its own without those within it, wherever they end."""
    spans = np.array([[2, 0.0, 10.0], [5, 1.0, 3.0], [4, 1.5, 2.0], [5, 9.0, 12.0], [3, 12.0, 13.0]])
    assert own_seconds(spans).tolist() == [7.0, 1.5, 0.5, 3.0, 1.0]


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    meter = Meter()
    recorder = Recorder(meter, 2)
    began = recorder._began_s
    assert meter.spans is not None
    for number in (1, 2, 3):
        meter.spans.add("learning", began + number, began + number + 0.5)
        spans = np.array([[1.0, began + number, began + number + 0.25]])
        heard = Recorded(spans, 4, 0.125, began, began + number)
        meter.spans.heard.append(Heard(10, 99, heard, float("inf")))
        recorder.take(number)
    recorder.write(tmp_path / "timeline.jsonl")
    traces = read_traces(tmp_path / "timeline.jsonl")
    assert (traces.first, traces.last) == (2, 3)  # the last two
    learner, actor = traces.processes
    assert (learner.name, learner.pid, actor.name, actor.pid) == ("learner", os.getpid(), "actor 10", 99)
    assert learner.spans.tolist() == [[2.0, 2.0, 2.5], [2.0, 3.0, 3.5]]
    assert actor.spans.tolist() == [[1.0, 2.0, 2.25], [1.0, 3.0, 3.25]]
    assert (actor.left_out, actor.cpu_s, actor.clock_error_s) == (8, 0.25, float("inf"))
    assert actor.updates.tolist() == [2, 3]
    assert all(busy >= 0 for busy in traces.core_s.values())


def test_nothing_is_written_before_an_update(tmp_path: Path) -> None:
    Recorder(Meter(), 2).write(tmp_path / "timeline.jsonl")
    assert not (tmp_path / "timeline.jsonl").exists()


def test_shares_and_what_is_drawn(tmp_path: Path) -> None:
    actor = line(process="actor 0", pid=0, left_out=2, clock_error=20_000, cpu=1_000_000, spans=[[1, 0, 2_000_000]])
    traces = read_traces(written(tmp_path / "timeline.jsonl", HEAD, UPDATE, line(), actor))
    assert {kind: x for kind, x in traces.processes[0].seconds.items() if x} == {
        "waiting": 1.0,
        "learning": 2.5,
        "publishing": 0.5,
    }
    assert busy_lines(traces) == [
        "process   busy   cpu  acting  learning  waiting  publishing",
        "learner   75 %  0.50     0 %      62 %     25 %        12 %",
        "actor 0  100 %  0.25   100 %       0 %      0 %         0 %",
        "cores: 50 % busy (0: 75 %, 1: 25 %), whatever with; 38 % by these processes",
        "actor 0: 2 more spans were not recorded; the shares are of those that were",
        "actor 0: on another machine; its times may be off, up to 0.02 s",
    ]
    whole = json.loads(trace_bytes(traces, "x"))
    assert whole["otherData"] == {"title": "x", "updates": "7 to 7"}
    events = whole["traceEvents"]
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert names == ["learner (pid 12)", "actor 0"]
    spans = [event for event in events if event["ph"] == "X"]
    assert [(e["name"], e["pid"], e["ts"], e["dur"], e["args"]["update"]) for e in spans] == [
        ("waiting", 0, 0, 1_000_000, 7),
        ("learning", 0, 1_000_000, 3_000_000, 7),
        ("publishing", 0, 3_500_000, 500_000, 7),
        ("acting", 1, 0, 2_000_000, 7),
    ]
    (axes,) = draw_timeline(traces, "x").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["learner", "actor 0"]


BAD = {
    "it is empty": [],
    "another version of shoal": ['{"timeline": 2}'],
    "line 2: it is no table": [HEAD, "[]"],
    "line 2: a process comes before": [HEAD, line()],
    "it holds no update of a learner": [HEAD, UPDATE],
    "line 3: its updates are not in their order": [HEAD, UPDATE, UPDATE],
    "line 3: it names no process": [HEAD, UPDATE, line(process="\x1b[31m")],
    "line 3: pid is no whole number": [HEAD, UPDATE, line(pid=1.5)],
    "line 3: cpu cannot be -1": [HEAD, UPDATE, line(cpu=-1)],
    "line 3: a span is not three numbers": [HEAD, UPDATE, line(spans=[[0, 1]])],
    "line 3: a span is not three whole": [HEAD, UPDATE, line(spans=[[0, 1, 10**40]])],
    "line 3: a span is of no kind": [HEAD, UPDATE, line(spans=[[len(KINDS), 1, 2]])],
    "line 3: a span ends before": [HEAD, UPDATE, line(spans=[[0, 2, 1]])],
    "line 3: its spans are no list, or too many": [HEAD, UPDATE, line(spans=[[0, 1, 2]] * 2001)],
    "line 3: it is too long": [HEAD, UPDATE, line(process="x" * (1 << 19))],
    "line 2: an update ends before": [HEAD, UPDATE.replace("4000000", "-4")],
    "line 2: 'x' is no core": [HEAD, UPDATE.replace('"0"', '"x"')],
}


@pytest.mark.parametrize("said", BAD)
def test_a_damaged_file_is_refused(tmp_path: Path, said: str) -> None:
    path = written(tmp_path / "timeline.jsonl", *BAD[said])
    with pytest.raises(ConfigError, match=r"timeline\.jsonl is damaged") as caught:
        read_traces(path)
    assert said in str(caught.value) or "cannot be -4" in str(caught.value)


def test_a_large_file_takes_no_minutes(tmp_path: Path) -> None:
    """As many spans as are read, each in one process's updates."""
    spans = [[number % 3, 10 * number, 10 * number + 9] for number in range(2000)]
    lines = [HEAD]
    for number in range(62):
        lines += [UPDATE.replace("7", str(number), 1), line(spans=spans), line(process="actor 0", spans=spans)]
    traces = read_traces(written(tmp_path / "timeline.jsonl", *lines))
    assert sum(len(trace.spans) for trace in traces.processes) == 248_000
    (axes,) = draw_timeline(traces, "x").axes
    assert axes.get_title() == "x, updates 57 to 61"
    with pytest.raises(ConfigError, match="it has more than 250,000 spans"):
        read_traces(written(tmp_path / "timeline.jsonl", *lines, *[line(spans=spans)] * 2))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no timeline: set timeline when it is trained"):
        read_traces(tmp_path / "timeline.jsonl")
    os.mkfifo(tmp_path / "timeline.jsonl")
    with pytest.raises(ConfigError, match="is a pipe, not a file"):
        read_traces(tmp_path / "timeline.jsonl")


def test_a_run_records_its_last_updates(run_dir: Path) -> None:
    result = train(
        "CartPole-v1", total_timesteps=160, timeline=3, final_episodes=0, panel="none", run_dir=str(run_dir), **SMALL
    )
    run = RunDirectory(result.path)
    traces = read_traces(run.timeline)
    assert (traces.first, traces.last) == (3, 5)
    (learner,) = traces.processes
    assert {"acting", "environment", "learning"} <= {name for name, x in learner.seconds.items() if x}
    said = write_timeline(run)
    assert said[0].startswith("updates 3 to 5, ")
    assert (result.path / "timeline.png").read_bytes().startswith(b"\x89PNG")
    json.loads((result.path / "timeline.json").read_text())
    assert result.bottleneck == ""  # of a second nothing can be said


def test_by_default_nothing_is_recorded(run_dir: Path) -> None:
    with pytest.raises(ConfigError, match="timeline must be between 0 and 1000, got -1"):
        train("CartPole-v1", timeline=-1, run_dir=str(run_dir))
    result = train("CartPole-v1", total_timesteps=32, final_episodes=0, panel="none", run_dir=str(run_dir), **SMALL)
    assert not (result.path / "timeline.jsonl").exists()
    with pytest.raises(ConfigError, match="has no timeline"):
        write_timeline(RunDirectory(result.path))


@pytest.mark.slow
@pytest.mark.parametrize("inside", ["threads", "processes"])
def test_actors_are_on_it(inside: Any, run_dir: Path) -> None:
    """One axis: what an actor collected lies before what is learned from it."""
    result = train(
        "CartPole-v1",
        total_timesteps=128,
        timeline=2,
        actors=2,
        actors_in=inside,
        final_episodes=0,
        panel="none",
        run_dir=str(run_dir),
        **SMALL,
    )
    traces = read_traces(result.path / "timeline.jsonl")
    learner, *actors = traces.processes
    assert [actor.name for actor in actors] == ["actor 0", "actor 1"]
    learned = learner.spans[(learner.spans[:, 0] == KINDS.index("learning")) & (learner.updates == 4)]
    for actor in actors:
        own = actor.spans[actor.updates == 4]
        acted = own[own[:, 0] == KINDS.index("acting")]
        assert len(acted)
        assert acted[-1, 2] <= learned[0, 1]
        assert actor.clock_error_s == 0.0
        assert actor.pid not in (0, learner.pid)


def test_engines_of_strangers() -> None:
    """What is no setting counts as not said."""
    engine = engine_of({"schedule": 3, "actors": True, "num_envs": 8, "backend": "workers", "num_threads": 0})
    assert (engine.schedule, engine.actors, engine.num_envs, engine.backend) == ("sync", 0, 8, "workers")
    assert engine.num_threads >= 1
    assert not engine.replay
    assert engine_of({"algorithm": {"replay": {}}}).replay


@pytest.mark.parametrize(
    ("env", "backend", "stepped"),
    [
        ("CartPole-v1", "auto", "native"),
        ("CartPole-v1", "serial", "serial"),
        ("HalfCheetah-v5", "auto", "native"),
        ("HalfCheetah-v5", "mujoco", "native"),
        ("HalfCheetah-v5", "workers", "workers"),
        ("my.envs:Mine", "auto", "serial"),
    ],
)
def test_what_native_threads_step_is_advised_no_workers(env: str, backend: str, stepped: str) -> None:
    """The configuration of a run holds what was asked for, "auto" as a rule, not what that came to."""
    pytest.importorskip("mujoco")
    assert engine_of({"env": env, "backend": backend}).backend == stepped
