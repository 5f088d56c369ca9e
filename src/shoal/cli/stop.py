"""`shoal stop`: ends a run with a checkpoint of what is under way, from which `shoal resume` goes on."""

from __future__ import annotations

from shoal.cli.arguments import parse
from shoal.cli.asking import Asking, ask


def main(arguments: list[str], about: str) -> int:
    """Asks and waits; the exit status."""
    given = parse(Asking, arguments, command="stop", about=about)
    from shoal.run import control

    late = (
        "a step or an update under way has to end first; it stops as soon as that has"
    )
    return ask(given, control.stop, wanted="stopped", late=late)
