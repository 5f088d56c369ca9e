"""A run that no guard watches: everything is well, and nothing is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.run.guard.guard import Guard
from shoal.run.guard.notes import forget_stop

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.learn.learner import Learner
    from shoal.run.learning import Taken
    from shoal.run.loop import Stream
    from shoal.run.run import Run
    from shoal.run.writer import Writer


class Unwatched:
    """In the place of a `Guard`."""

    calm = True
    can_go_back = False

    def __init__(self, run: Run) -> None:
        """Of a run."""
        self.run = run

    def begin(self) -> None:
        """A run that a guard has stopped goes on."""
        if self.run.directory is not None and self.run.settings.leads:
            forget_stop(self.run.directory)

    def look(self, taken: Taken, greedy: float) -> None:
        """Nothing."""

    def finish(self) -> bool:
        """Nothing changed."""
        return False

    def rescue(self, writer: Writer | None, error: Exception) -> None:
        """Nothing."""

    def numbers(self) -> dict[str, float]:
        """None."""
        return {}

    def parts(self) -> dict[str, Any]:
        """None."""
        return {}

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Nothing: what a checkpoint holds of a guard is left out."""


def guard_of(
    run: Run, stream: Stream, learners: Mapping[str, Learner]
) -> Guard | Unwatched:
    """Who watches a run, as its settings say."""
    cfg = run.settings.guarding
    if cfg is None:
        return Unwatched(run)
    return Guard(run, stream, learners, cfg, run.rules)
