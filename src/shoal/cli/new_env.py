"""`shoal new-env`: creates a new C++ environment from a template."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shoal.cli.arguments import parse


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `new-env`."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Name of the environment in snake_case, such as fruit_catch. Run this in a checkout of shoal."""
    package: bool = False
    """Make a project of its own in the folder NAME instead, which needs no checkout: pip builds and installs it."""


def main(arguments: list[str], about: str) -> int:
    """Writes the files; the exit status."""
    given = parse(Given, arguments, command="new-env", about=about)
    if given.package:
        from shoal.envs.scaffold_package import new_package

        written = new_package(given.name, Path())
        folder = written[0].parent.name
        next_steps = (
            f"`pip install --no-build-isolation ./{folder}` builds it, with a C++20 compiler (none is needed before); "
            f"{folder}/README.md has the rest"
        )
    else:
        from shoal.envs.scaffold import new_env

        written = new_env(given.name, Path())
        next_steps = (
            f"`make` builds it; `make test ARGS=tests/{written[1].name}` tests it"
        )
    for path in written:
        print(path)
    print(next_steps)
    return 0
