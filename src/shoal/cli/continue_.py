"""`shoal continue`: has a run that was paused go on."""

from __future__ import annotations

from shoal.cli.arguments import parse
from shoal.cli.asking import Asking, told


def main(arguments: list[str], about: str) -> int:
    """Asks and waits; the exit status."""
    given = parse(Asking, arguments, command="continue", about=about)
    from shoal.run import control

    run = given.found()
    control.go_on(run)
    status = control.wait_until(
        run, given.timeout_s, lambda now: now.get("state") == "running"
    )
    return told(run, status, wanted="running", late="it has not noticed yet")
