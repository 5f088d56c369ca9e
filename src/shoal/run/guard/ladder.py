"""The ladder: what follows a finding, and what follows where it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.run.guard.seen import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.run.guard.seen import Action, Finding

SKIP, HALVE, BACK, STOP = (ACTIONS.index(x) for x in ACTIONS[1:])
BACKS = 2
"""Times that a learner goes back, to its last good state and then to its best, before the run is stopped."""


class Ladder:
    """Skip, halve the rate, go back, stop: each finding takes the next rung until a state is verified again."""

    def __init__(self) -> None:
        """At its foot."""
        self.rung = 0
        """The last one that was taken; 0: none since a state was verified."""
        self.backs = 0
        """How often the learner went back since."""

    @property
    def calm(self) -> bool:
        """Whether nothing was found since a state was verified."""
        return self.rung == 0

    def take(
        self, findings: Sequence[Finding], *, may_go_back: bool, slowest: bool
    ) -> Action:
        """The rung that follows: at least what one of the findings asks for, and one more than the last time.

        Args:
            findings: of one check.
            may_go_back: whether a state was verified that the learner can go back to. Without one, it goes on with
                half the rate, whatever is found.
            slowest: whether its rate cannot be halved any more. Then it goes back; without a state, the run is stopped.
        """
        wanted = max(ACTIONS.index(found.action) for found in findings)
        rung = max(wanted, self.rung + 1) if self.rung else wanted
        if self.rung == BACK and self.backs < BACKS and wanted < STOP:
            rung = BACK
        if not may_go_back and wanted < STOP:
            rung = min(rung, HALVE)
        if rung == HALVE and slowest:
            rung = BACK if may_go_back else STOP
        self.rung = min(rung, STOP)
        self.backs += self.rung == BACK
        return ACTIONS[self.rung]

    def close(self) -> None:
        """A state was verified."""
        self.rung = self.backs = 0

    def state(self) -> dict[str, int]:
        """All that `restore` needs."""
        return {"rung": self.rung, "backs": self.backs}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continues from `saved`."""
        self.rung, self.backs = int(saved["rung"]), int(saved["backs"])
