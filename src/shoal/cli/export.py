"""`shoal export`: writes a trained policy as files that run without this library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shoal.cli.arguments import parse
from shoal.cli.loading import OfPolicy, agent_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Given(OfPolicy):
    """Options of `export`."""

    to: Literal["c", "onnx", "torchscript", "torch-export"]
    """c: C99 source without dependencies; the others take modules of your own too."""
    out: Path | None = None
    """Folder to write; default: exports/ENV/ALGO-TO-v0, or the next number that is free."""
    name: str = "policy"
    """Begins the names of files, and in C of functions and types."""
    masks: bool | None = None
    """Whether a graph reads action masks; default: where the environment has them."""


def main(arguments: list[str], about: str) -> int:
    """Exports; the exit status."""
    given = parse(Given, arguments, command="export", about=about)
    from shoal.types.text import printable

    agent = agent_of(given)
    made = agent.export(given.out, to=given.to, name=given.name, masks=given.masks)
    print(f"{printable(made.folder)}: {', '.join(made.files)}")
    return 0
