"""Rules of learning from a replay memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.report.doctor.finding import CAUSE, Finding

if TYPE_CHECKING:
    from shoal.report.doctor.evidence import Evidence

FEW_SAMPLES = 4.0
"""Samples drawn for each step that was stored: fewer leave most of the memory unused."""


def ratio_too_low(run: Evidence) -> Finding | None:
    """Steps are learned from too seldom."""
    ratio = run.setting("replay.samples_per_insert", FEW_SAMPLES)
    if not run.replay or run.course.well or ratio >= FEW_SAMPLES:
        return None
    what = f"each step is learned from {ratio:g} times on average, which is little (8 to 128 are usual)"
    advice = f"replay.samples_per_insert={max(16, 16 * ratio):g}: more updates for the same steps"
    numbers = {
        "replay.samples_per_insert": ratio,
        "updates": run.number("updates") or 0.0,
    }
    return Finding("replay-ratio-too-low", CAUSE, what, advice, numbers)
