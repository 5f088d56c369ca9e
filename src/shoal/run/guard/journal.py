"""The guard's journal: what it does is said at once, and written into the run directory by the process that leads."""

from __future__ import annotations

import math
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from shoal.run.callbacks import tell
from shoal.run.guard.notes import (
    MOST,
    SAID,
    Intervention,
    Notes,
    forget_notes,
    forget_stop,
    write_notes,
    write_stop,
)
from shoal.types.text import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.run.directory import RunDirectory
    from shoal.run.guard.seen import Action
    from shoal.run.guard.states import Kept
    from shoal.run.loop import Stream
    from shoal.run.run import Run

QUIET = ("tell", "environment")
"""What is no warning: it says what changes nothing, or what an error says too."""


class Journal:
    """What the guard of a run did."""

    def __init__(self, run: Run, stream: Stream) -> None:
        """Nothing yet."""
        self.run, self.stream = run, stream
        self.notes = Notes()

    @property
    def directory(self) -> RunDirectory | None:
        """Where it is written; None where it is not."""
        return self.run.directory if self.run.settings.leads else None

    def begin(self, *, stopped: bool) -> None:
        """The files become what is known; a run that was killed may have written more."""
        if self.directory is None:
            return
        if not stopped:
            forget_stop(self.directory)
        if self.notes.count:
            write_notes(self.directory, self.notes)
        else:
            forget_notes(self.directory)

    def add(self, learner: str, rule: str, action: Action, said: str) -> None:
        """One more time that the guard acted: on which learner, by which rule, and what it found and did."""
        updates, step = self.run.updates, self.stream.env_steps
        said = shortened(said, SAID)
        made = Intervention(updates, step, learner, rule, action, said)
        listed = self.notes.interventions
        listed = (*listed, made) if len(listed) < MOST else listed
        self.notes = Notes(self.notes.count + 1, listed)
        if not self.run.settings.leads:
            return
        quiet = action in QUIET or rule in QUIET
        told = f"guard: update {updates:,}, step {step:,}: {said}"
        tell(self.run, told, how="note" if quiet else "warn")
        if self.directory is not None:
            write_notes(self.directory, self.notes)

    def write_stop(self, reason: str, kept: Mapping[str, Kept | None]) -> None:
        """Why the guard ended the run, and which state of each learner it is left with."""
        if self.directory is None:
            return
        about = {
            "reason": reason,
            "update": self.run.updates,
            "step": self.stream.env_steps,
            "kept": {name: _about(one) for name, one in kept.items()},
        }
        write_stop(self.directory, about)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        listed = [list(astuple(x)) for x in self.notes.interventions]
        return {"count": self.notes.count, "interventions": listed}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continues from `saved`."""
        listed = tuple(Intervention(*fields) for fields in saved["interventions"])
        self.notes = Notes(int(saved["count"]), listed)


def _about(kept: Kept | None) -> dict[str, float | int | None]:
    if kept is None:
        return {"update": None, "return": None}
    figure = None if math.isnan(kept.figure) else kept.figure
    about: dict[str, float | int | None] = {"update": kept.update, "return": figure}
    if not math.isnan(kept.held):
        about["held_out"] = kept.held
    return about
