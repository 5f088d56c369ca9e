"""Importance: which features the policy's choices come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from shoal.report.explain.attributions import integrated_gradients

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.report.explain.decisions import Decisions
    from shoal.types import Floats

COMPONENTS = 8
"""Of an action: those that are attributed, at most."""


@dataclass(frozen=True, slots=True)
class Importance:
    """Attributions of N steps to F features."""

    share: Floats
    """Of each feature [F]: its part of all attributions' sizes."""
    attributions: Floats
    """Of each step [N, F], the outputs' mean size where there are several, signed where there is one."""
    incomplete: float
    """The largest part of an output's change from the baseline that the attributions leave out, of the mean change."""


def importance_of(
    decisions: Decisions, at: Sequence[int], baseline: Floats, *, points: int
) -> Importance:
    """Integrated gradients of the policy's preferences at steps `at`, from what it sees on average.

    Args:
        decisions: the policy.
        at: steps.
        baseline: features [F] that lead nowhere: their means.
        points: on each line.
    """
    x = torch.from_numpy(decisions.values(at)).float()
    base = torch.from_numpy(baseline).float()
    chosen = decisions.greedy(at, x)

    def outputs(point: torch.Tensor) -> torch.Tensor:
        return decisions.preferences(at, point, chosen)[:, :COMPONENTS]

    found = integrated_gradients(outputs, x, base, steps=points)
    with torch.no_grad():
        change = outputs(x) - outputs(base.expand_as(x))
    missing = (found.sum(-1) - change).abs().max()
    incomplete = float(missing / change.abs().mean().clamp(min=1e-12))
    sizes = found.abs().mean((0, 1)).double().numpy()
    signed = found[:, 0] if found.shape[1] == 1 else found.abs().mean(1)
    return Importance(
        sizes / max(float(sizes.sum()), 1e-12),
        np.asarray(signed.detach().double().numpy()),
        incomplete,
    )
