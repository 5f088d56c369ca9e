"""`shoal pause`: has a run stand still until `shoal continue`, and says when it does."""

from __future__ import annotations

from shoal.cli.arguments import parse
from shoal.cli.asking import Asking, ask


def main(arguments: list[str], about: str) -> int:
    """Asks and waits; the exit status."""
    given = parse(Asking, arguments, command="pause", about=about)
    from shoal.run import control

    late = (
        "a step or an update under way has to end first; it pauses as soon as that has"
    )
    return ask(given, control.pause, wanted="paused", late=late)
