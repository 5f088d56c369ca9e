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


def main(arguments: list[str], about: str) -> int:
    """Writes the files; the exit status."""
    given = parse(Given, arguments, command="new-env", about=about)
    from shoal.envs.scaffold import new_env

    written = new_env(given.name, Path())
    for path in written:
        print(path)
    print(f"`make` builds it; `make test ARGS=tests/{written[1].name}` tests it")
    return 0
