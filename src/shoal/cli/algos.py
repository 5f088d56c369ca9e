"""`shoal algos`: lists the algorithms."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.cli.arguments import parse


@dataclass(frozen=True, slots=True)
class Given:
    """`algos` has no options."""


def main(arguments: list[str], about: str) -> int:
    """Lists; the exit status."""
    parse(Given, arguments, command="algos", about=about)
    from shoal.algos import summaries

    found = summaries()
    width = max(map(len, found))
    for name, text in found.items():
        print(f"  {name:<{width}} {text}")
    print(
        "custom algorithms are given by module: shoal train --algo my_package.my_algo"
    )
    return 0
