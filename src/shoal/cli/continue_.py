"""`shoal continue`: has a run that was paused go on."""

from __future__ import annotations

from shoal.cli.arguments import parse
from shoal.cli.asking import Asking, ask


def main(arguments: list[str], about: str) -> int:
    """Asks and waits; the exit status."""
    given = parse(Asking, arguments, command="continue", about=about)
    from shoal.run import control

    late = "it has not noticed yet"
    return ask(given, control.go_on, wanted="running", late=late)
