"""Lenient criteria: numbers that let worse policies through, said in words beside the measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.deploy.stages.criteria import Canary, Replay, Shadow

LEAST_CONFIDENCE = 0.8
"""Below it a bound is broken too often to be one."""


def lenient_replay(wanted: Replay) -> Iterator[str]:
    """What a log's criteria let through."""
    if wanted.least_gain < 0:
        yield (
            f"least_gain {wanted.least_gain:g} is below 0: a policy that is estimated to return up to "
            f"{-wanted.least_gain:g} less than the logged controller holds too."
        )
    yield from _confidence("confidence", wanted.confidence)
    few = wanted.least_effective_episodes
    if few < 2:
        yield (
            f"least_effective_episodes {few:g} asks for nothing: an estimate may rest on a single episode."
        )


def lenient_shadow(wanted: Shadow) -> Iterator[str]:
    """What a shadow's criteria let through."""
    if wanted.least_agreement <= 0 and wanted.most_distance >= 1:
        yield (
            f"least_agreement {wanted.least_agreement:g} and most_distance {wanted.most_distance:g} hold for any "
            "policy, whatever the controller does."
        )
    yield from _guard(wanted.most_interventions)


def lenient_canary(wanted: Canary) -> Iterator[str]:
    """What a canary's criteria let through."""
    if wanted.most_loss > 0:
        yield (
            f"most_loss {wanted.most_loss:g} is above 0: a policy that returns up to {wanted.most_loss:g} less than "
            "the controller holds too."
        )
    yield from _confidence("confidence", wanted.confidence)
    yield from _guard(wanted.most_interventions)


def _confidence(name: str, value: float) -> Iterator[str]:
    if value < LEAST_CONFIDENCE:
        yield (
            f"{name} {value:g} is low: such an interval misses the true return in {1 - value:.0%} of the cases."
        )


def _guard(most: float) -> Iterator[str]:
    if most >= 1:
        yield "most_interventions 1 holds even where the action guard changes every action."
