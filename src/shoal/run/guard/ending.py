"""How a run that is watched ends: as its verified best where the guard ever acted, which an error leaves too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.run.callbacks import tell
from shoal.run.parts import states_of

if TYPE_CHECKING:
    from shoal.run.guard.guard import Guard
    from shoal.run.writer import Writer


GUARD = "guard: "
"""How the stop reason of a run begins that the guard has ended."""


def look_once(guard: Guard) -> None:
    """Looks where no check was due in the whole run, as it was short: every rule is asked at least once."""
    run = guard.run
    if guard.looks:
        return
    if guard.latest is not None:
        guard.check(*guard.latest)
        run.stop_reason = guard.stopped or run.stop_reason
    if run.rules and not guard.looks:
        run.warn(
            f"no gradient step was taken in {run.updates:,} updates, so the guard looked at nothing and never called "
            "the rules that it was given: train for longer, or begin to learn earlier"
        )


def end_as_best(guard: Guard) -> bool:
    """Each learner on which the guard ever acted becomes its verified best; whether one did."""
    changed = False
    for watch in guard.watches.values():
        best = watch.states.best
        if not watch.acted or best is None:
            continue
        watch.put(best)
        changed = True
        said = f"{watch.name} ends as its verified best, of update {best.said}"
        tell(guard.run, f"the guard acted in this run: {said}", how="note")
    if guard.stopped:
        reason = guard.stopped.removeprefix(GUARD)
        watches = guard.watches.items()
        kept = {name: watch.states.best for name, watch in watches}
        guard.journal.write_stop(reason, kept)
    return changed


def keep_best(guard: Guard, writer: Writer | None, error: Exception) -> None:
    """Has the checkpoint `best` hold the verified best of a run whose environment fails; the error says so.

    The rolling ones stay as they are, so that a resumed run goes on as if nothing had failed.
    """
    kept = {name: watch.states.best for name, watch in guard.watches.items()}
    if writer is None or None in kept.values():
        return
    said = ""
    for name, best in kept.items():
        if best is not None:
            guard.watches[name].put(best)
            said = said or f"update {best.said}"
    first = next(iter(kept))
    failed = f"the environment failed ({type(error).__name__})"
    guard.journal.add(first, "environment", "stop", failed)
    learners = {name: watch.learner for name, watch in guard.watches.items()}
    if writer.write_best({"learner": states_of(learners)}):
        error.add_note(
            f"shoal: the checkpoint 'best' holds the verified best policy, of {said}; `shoal resume` goes on from the "
            "newest one"
        )
