"""`shoal envs`: lists the environments."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from shoal.cli.arguments import parse


@dataclass(frozen=True, slots=True)
class Given:
    """`envs` has no options."""


def main(arguments: list[str], about: str) -> int:
    """Lists; the exit status."""
    parse(Given, arguments, command="envs", about=about)
    from shoal.envs import native, packages

    problems = packages.load_all()
    print("native (C++):")
    for name in native.ids():
        print(f"  {name}")
    print(
        "any other Gymnasium id, or package.module:function, runs on the serial backend, e.g. Blackjack-v1"
    )
    for problem in problems:
        print(problem, file=sys.stderr)
    return 0
