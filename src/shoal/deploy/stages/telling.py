"""Telling: the stages of a policy as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.run.stage_file import STAGES
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.run.stage_file import Entry, Stages

SHOWN = 12
"""Letters of a sha256, and entries of history, criteria and notes."""


def told(stages: Stages, policy: str) -> list[str]:
    """Where a policy stands, what was measured, and what comes next."""
    return [printable(line) for line in _lines(stages, policy)]


def _lines(stages: Stages, policy: str) -> Iterator[str]:
    standing = {entry.stage: entry for entry in stages.standing(policy)}
    yield f"policy {policy[:SHOWN]}"
    for stage in STAGES:
        entry = standing.get(stage)
        if entry is None:
            yield f"  {stage}: not entered{_void(stages, stage, policy)}"
            continue
        yield f"  {stage}: {_verdict(entry)}"
        yield from (f"      {one}" for one in entry.criteria[:SHOWN])
        yield from (f"      {note}" for note in entry.notes[:SHOWN])
        left = max(0, len(entry.criteria) - SHOWN) + max(0, len(entry.notes) - SHOWN)
        if left:
            yield f"      and {left:,} more; stages.json has them"
        if entry.source:
            data = f", sha256 {entry.data[:SHOWN]}" if entry.data else ""
            yield f"      measured by {entry.source}{data}, {entry.at}"
    deployed = stages.deployed
    if deployed is not None:
        same = "this one" if deployed.policy == policy else deployed.policy[:SHOWN]
        yield f"deployed: {same}, since {deployed.signed.at if deployed.signed else deployed.at}"
    else:
        yield "deployed: none; the controller acts"
    gone = [entry for entry in stages.entries if entry.withdrawn is not None]
    for entry in gone[-SHOWN:]:
        word = entry.withdrawn
        assert word is not None
        yield (
            f"withdrawn: {entry.stage} of {entry.policy[:SHOWN]}, by {word.name} at {word.at}: {word.reason}"
        )


def _verdict(entry: Entry) -> str:
    if entry.signed is not None:
        return f"signed by {entry.signed.name} at {entry.signed.at}"
    if not entry.measured:
        return f"entered {entry.at}, not measured yet"
    if not entry.holds:
        return "measured; its criteria do not hold"
    return "its criteria hold; not signed yet"


def _void(stages: Stages, stage: str, policy: str) -> str:
    """That a signature of another policy does not count for this one."""
    for entry in reversed(stages.entries):
        fits = entry.stage == stage and entry.withdrawn is None and entry.signed
        if fits and entry.policy != policy and entry.signed is not None:
            return (
                f"; the signature of {entry.signed.name} is of the policy {entry.policy[:SHOWN]}, and void for this "
                "one, which has changed since"
            )
    return ""
