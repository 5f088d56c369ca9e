"""`shoal push`: copies a run's language model to where others load it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from shoal.cli.arguments import parse


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `push`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, or a directory of runs (the newest is used)."""
    to: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TO")]
    """A folder, which is made; or hub:OWNER/NAME, on the hub that the package huggingface_hub is logged in to."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""
    private: bool = False
    """On a hub: make it private."""


def main(arguments: list[str], about: str) -> int:
    """Copies; the exit status."""
    given = parse(Given, arguments, command="push", about=about)
    from shoal.experiment.pushing import push
    from shoal.types.text import printable

    where = push(given.run, given.to, run_dir=given.run_dir, private=given.private)
    print(f"pushed to {printable(where)}")
    return 0
