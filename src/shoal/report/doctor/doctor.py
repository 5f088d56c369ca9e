"""What `shoal doctor` does: asks every rule, and orders what they find."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from shoal.report.doctor import (
    costs,
    endings,
    episodes,
    groups,
    learning,
    replay,
    rewards,
    speed,
    updates,
)
from shoal.report.doctor.evidence import Evidence
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.report.doctor.finding import Finding
    from shoal.run.directory import RunDirectory

RULES: tuple[Callable[[Evidence], Finding | None], ...] = (
    endings.not_finite,
    endings.failed,
    endings.interrupted,
    endings.unjudged,
    endings.never_began,
    endings.damaged,
    endings.guarded,
    episodes.never_end,
    episodes.too_few,
    episodes.all_equal,
    episodes.acts_at_random,
    episodes.greedy_worse,
    costs.above_limit,
    updates.rate_too_high,
    updates.rate_too_low,
    updates.entropy_gone,
    updates.entropy_bonus,
    updates.rate_unusual,
    updates.too_few,
    updates.staleness,
    rewards.scale_too_large,
    rewards.values_dominate,
    rewards.observations_large,
    rewards.horizon_short,
    replay.ratio_too_low,
    replay.target_never_moves,
    replay.values_beyond,
    replay.never_explores,
    replay.steps_lost,
    groups.without_signal,
    groups.answers_cut,
    groups.answers_lost,
    speed.slow_environment,
    costs.paid_for,
    learning.no_learning,
    learning.fell,
    learning.ended_early,
    learning.below_threshold,
)
AT_THE_END = (
    costs.above_limit,
    costs.paid_for,
    episodes.too_few,
    updates.too_few,
    learning.ended_early,
    learning.below_threshold,
)
"""Rules of what a run came to: they have nothing to say while it goes on."""
HEALTHY = "nothing to say: by what the run left, nothing is wrong with it"


def diagnose(run: RunDirectory) -> list[Finding]:
    """What is wrong with a run, the most important first; empty where nothing is.

    Raises:
        ConfigError: no run directory, or a damaged one.
    """
    return examine(Evidence.of(run))


def examine(evidence: Evidence) -> list[Finding]:
    """What the rules find in evidence, the most important first."""
    with np.errstate(all="ignore"):  # numbers of strangers may be of any size
        left_out = AT_THE_END if evidence.goes_on else ()
        asked = [rule for rule in RULES if rule not in left_out]
        found = [made for rule in asked if (made := rule(evidence)) is not None]
    return sorted(found, key=lambda finding: -finding.importance)


def as_text(findings: Sequence[Finding]) -> list[str]:
    """What a person reads, line by line."""
    if not findings:
        return [HEALTHY]
    lines: list[str] = []
    for number, finding in enumerate(findings, 1):
        first, *others = finding.lines()
        lines += [f"{number}. {first}", *(f" {line}" for line in others)]
    return [printable(line, 1000) for line in lines]


def as_json(run: RunDirectory, findings: Sequence[Finding]) -> str:
    """The same as JSON: the run's path, and its findings in order."""
    told = [finding.table() for finding in findings]
    return json.dumps({"run": str(run.path), "findings": told}, indent=1)
