"""Learning as a run sees it: the learners' statistics as metrics, and how many gradient steps there were."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from shoal.learn.rate_factor import rate_factor_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from shoal.learn.learner import Learner
    from shoal.run.metrics import Metrics

Taken: TypeAlias = "dict[str, tuple[dict[str, float | Tensor], dict[str, int]]]"
"""Sums and counts of the statistics of an update, by metric, of each learner."""
SMALLER = (
    "try a smaller learning_rate, or smaller rewards and observations "
    "(reward_scale, network.normalize_obs)"
)
"""What may help where nothing is finite."""


def take_statistics(metrics: Metrics, learners: Mapping[str, Learner]) -> Taken:
    """Moves the learners' statistics into the line under way, after each update: the bits of a sum depend on it.

    Of several learners, each has metrics of its own, METRIC/LEARNER.

    Returns:
        Their sums and counts.
    """
    taken: Taken = {}
    for name, learner in learners.items():
        suffix = f"/{name}" if len(learners) > 1 else ""
        totals, counts = taken[name] = learner.statistics()
        for metric, total in totals.items():
            metrics.add(metric + suffix, total, counts[metric])
        rate = learner.learning_rate * rate_factor_of(learner)
        in_force = {"learning_rate": rate, **learner.scheduled}
        for setting, value in in_force.items():
            metrics.add(f"train/{setting}{suffix}", value)
    return taken


def policies_of(learners: Mapping[str, Learner], kept: str) -> list[nn.Module]:
    """The learners' policies; the first is the one that is evaluated, and loaded from checkpoints: that of `kept`.

    Where `kept` is empty, it is the first learner's.
    """
    first = kept or next(iter(learners))
    names = [first, *(name for name in learners if name != first)]
    return [learners[name].policy for name in names]


def steps_taken(learners: Mapping[str, Learner]) -> tuple[int, int]:
    """Gradient steps of all learners so far, and those that were skipped."""
    taken = sum(learner.updates for learner in learners.values())
    return taken, sum(learner.skipped for learner in learners.values())


def check_learned(
    learners: Mapping[str, Learner], before: tuple[int, int], where: str, saved: int
) -> None:
    """Checks that not every gradient step since `before` was skipped: nothing would be learned any more.

    `where` says which update this is, `saved` which one the newest checkpoint is of (0 or less: there is none).

    Raises:
        FloatingPointError: every one was.
    """
    taken, skipped = steps_taken(learners)
    if taken > before[0] or skipped == before[1]:
        return
    kept = "no checkpoint was written yet"
    if saved > 0:
        kept = f"the checkpoint of update {saved} is kept"
    raise FloatingPointError(
        f"{where}: the loss or its gradient is not finite in any of "
        f"{skipped - before[1]} gradient steps; {kept}; {SMALLER}"
    )
