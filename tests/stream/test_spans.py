"""Spans of a timeline: joined, bounded, and on one clock."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shoal.stream import meter as meters
from shoal.stream.actors.clock import Clock
from shoal.stream.meter import Meter
from shoal.stream.spans import KINDS, MOST_SPANS, Recorded, Spans


def recorded(begun_s: float, ended_s: float) -> Recorded:
    return Recorded(np.array([[0.0, begun_s, ended_s]]), 0, 0.0, begun_s, ended_s)


def test_neighbors_of_one_kind_are_one_span() -> None:
    spans = Spans()
    spans.add("environment", 1.0, 1.5)
    spans.add("environment", 1.500001, 2.0)
    spans.add("acting", 2.0, 2.000001)  # too short to tell anything
    spans.add("acting", 2.0, 2.5)
    spans.add("acting", 2.6, 2.7)  # a gap
    found, left_out = spans.take()
    assert found.tolist() == [[0, 1.0, 2.0], [1, 2.0, 2.5], [1, 2.6, 2.7]]
    assert left_out == 0
    assert spans.take()[0].shape == (0, 3)


def test_there_are_so_many_spans_at_most() -> None:
    spans = Spans()
    for number in range(MOST_SPANS + 3):
        spans.add("acting", number, number + 0.5)
    found, left_out = spans.take()
    assert (len(found), left_out) == (MOST_SPANS, 3)
    assert spans.take()[1] == 0


def test_a_meter_records_what_it_counts() -> None:
    """Shares of one call stand side by side; what is only shown is not counted."""
    meter = Meter()
    meter.add("acting", 1.0)  # nothing is recorded yet
    spans = meter.spans = Spans()
    meter.add_shares({"acting": 0.25, "environment": 0.75}, 4.0)
    meter.add("learning", 1.0, shown=False)
    with meter.show("saving"):
        sum(range(10_000))
    assert {name: round(x, 6) for name, x in meter.seconds.items() if x} == {
        "acting": 2.0,
        "environment": 3.0,
        "learning": 1.0,
    }
    found, _ = spans.take()
    assert [KINDS[int(kind)] for kind in found[:, 0]] == ["acting", "environment", "saving"]
    assert found[0, 2] - found[0, 1] == pytest.approx(1.0)
    assert found[1, 2] - found[1, 1] == pytest.approx(3.0)
    assert found[0, 2] == found[1, 1]


def test_means_of_what_is_noted() -> None:
    heard: list[tuple[str, float]] = []
    meter = Meter(lambda name, value: heard.append((name, value)))
    meter.note("speed/actors_wait", 0.25)
    meter.note("speed/actors_wait", 0.75)
    assert meter.mean("speed/actors_wait") == 0.5
    assert meter.mean("speed/learner_waits") is None
    assert heard == [("speed/actors_wait", 0.25), ("speed/actors_wait", 0.75)]


def test_busy_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter()
    meter._core_s, meter._core_at_s = {0: 5.0, 3: 7.0}, 10.0
    monkeypatch.setattr(meters, "core_seconds", lambda: {0: 6.0, 3: 9.5})
    monkeypatch.setattr(meters.time, "perf_counter", lambda: 12.0)
    assert meter.core_shares() == [0.5, 1.0]
    assert set(meters.core_seconds()) == {0, 3}


def test_the_clock_of_this_machine_is_shared() -> None:
    clock = Clock(shared=True)
    clock.hear(1.0, 2.0, recorded(50.0, 51.0))
    assert clock.error_s == 0.0
    assert clock.here(recorded(50.0, 51.0)).spans.tolist() == [[0.0, 50.0, 51.0]]


def test_the_clock_of_another_machine_lies_between_bounds() -> None:
    """The learner's is 100 s ahead; messages take 10 to 50 ms, and an actor begins late where it is busy."""
    clock = Clock(shared=False)
    assert math.isinf(clock.error_s)
    clock.hear(10.0, 11.06, recorded(-89.99, -88.99))  # 10 ms there, 50 ms back
    assert clock.error_s == pytest.approx(0.03)
    clock.hear(10.5, 12.02, recorded(-88.9, -87.99))  # asked long before; 10 ms back
    assert clock.error_s == pytest.approx(0.01)
    here = clock.here(recorded(-88.9, -87.99))
    assert here.begun_s == pytest.approx(11.1)
    assert here.spans[0].tolist() == pytest.approx([0.0, 11.1, 12.01])
