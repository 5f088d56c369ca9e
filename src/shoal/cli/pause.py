"""`shoal pause`: has a run stand still until `shoal continue`, and says when it does."""

from __future__ import annotations

from shoal.cli.arguments import parse
from shoal.cli.asking import Asking, told


def main(arguments: list[str], about: str) -> int:
    """Asks and waits; the exit status."""
    given = parse(Asking, arguments, command="pause", about=about)
    from shoal.run import control

    run = given.found()
    control.pause(run)
    status = control.wait_until(
        run, given.timeout_s, lambda now: now.get("state") == control.PAUSED
    )
    return told(
        run,
        status,
        wanted=control.PAUSED,
        late="a step or an update under way has to end first; it pauses as soon as that has",
    )
