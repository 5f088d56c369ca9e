"""A run that no guard watches: everything is well, and nothing is kept."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from shoal.run.callbacks import tell
from shoal.run.guard.guard import Guard
from shoal.run.guard.notes import forget_stop
from shoal.run.guard.watch import GIB

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

    def look(self, taken: Taken, greedy: float, batch: Any) -> None:
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
    guard = Guard(run, stream, learners, cfg, run.rules)
    for name, watch in guard.watches.items():
        if run.settings.leads and not watch.states.possible:
            told = _too_large(name, watch.states.needed_bytes / GIB, cfg.memory_gib)
            tell(run, told, how="note")
    return guard


def _too_large(name: str, needed_gib: float, limit_gib: float) -> str:
    """That the guard cannot go back, and why."""
    cannot = "the guard can halve its rate and stop the run, but not go back"
    if needed_gib == inf:
        return f"guard: {name} lies in parts on several learners, none of which holds a copy of it: {cannot}"
    return (
        f"guard: three copies of {name} and its optimizer take {needed_gib:.3g} GiB, and guarding.memory_gib is "
        f"{limit_gib:g}: {cannot}; a larger guarding.memory_gib lets it"
    )
