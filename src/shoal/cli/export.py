"""`shoal export`: writes a trained policy as files that run without this library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shoal.cli.arguments import add_here, look_here, parse


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `export`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, or a directory of runs (the newest is used)."""
    to: Literal["c", "onnx", "torchscript", "torch-export"]
    """c: C99 source without dependencies; the others take modules of your own too."""
    out: Path | None = None
    """Folder to write; default: exports/ENV/ALGO-TO-v0, or the next number that is free."""
    name: str = "policy"
    """Begins the names of files, and in C of functions and types."""
    masks: bool | None = None
    """Whether a graph reads action masks; default: where the environment has them."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""
    env: str | None = None
    """The environment, as `package.module:Class`, where the run was given an object."""
    policy: str | None = None
    """The policy, as `package.module:Class`, where the run was given an object."""
    tag: Literal["", "best", "deployed"] = ""
    """Checkpoint to export: the newest, `best`, or `deployed` (see `shoal stage`)."""
    trust: bool = False
    """Import and run what the file names (an environment, a policy, an algorithm), though nothing shows that you
    wrote it."""


def main(arguments: list[str], about: str) -> int:
    """Exports; the exit status."""
    given = parse(Given, arguments, command="export", about=about)
    look_here(given.env, given.policy)
    if given.trust:
        add_here()
    from shoal.experiment.agent import load
    from shoal.types.text import printable

    agent = load(
        given.run,
        run_dir=given.run_dir,
        policy=given.policy,
        factory=given.env,
        tag=given.tag,
        trust=given.trust,
    )
    made = agent.export(given.out, to=given.to, name=given.name, masks=given.masks)
    print(f"{printable(made.folder)}: {', '.join(made.files)}")
    return 0
