"""Learning as a run sees it: the learners' statistics as metrics, and how many gradient steps there were."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.learn.learner import Learner
    from shoal.run.metrics import Metrics


def take_statistics(metrics: Metrics, learners: Mapping[str, Learner]) -> None:
    """Moves the learners' statistics into the line under way, after each update: the bits of a sum depend on it.

    Of several learners, each has metrics of its own, METRIC/LEARNER.
    """
    for name, learner in learners.items():
        suffix = f"/{name}" if len(learners) > 1 else ""
        totals, counts = learner.statistics()
        for metric, total in totals.items():
            metrics.add(metric + suffix, total, counts[metric])
        metrics.add(f"train/learning_rate{suffix}", learner.learning_rate)


def steps_taken(learners: Mapping[str, Learner]) -> tuple[int, int]:
    """Gradient steps of all learners so far, and those that were skipped."""
    taken = sum(learner.updates for learner in learners.values())
    return taken, sum(learner.skipped for learner in learners.values())
