"""The files of a policy in C: header, source, weights, layers, a Makefile and an example."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from shoal.deploy.c.acting import choosing, functions, limiting
from shoal.deploy.c.example import example
from shoal.deploy.c.interface import Interface, header
from shoal.deploy.c.names import comment
from shoal.deploy.c.network import checks, deciding, encoding
from shoal.deploy.c.weights import WeightBook

if TYPE_CHECKING:
    from shoal.deploy.program import Program
    from shoal.types import Spec

FLAGS = "-std=c99 -O3 -march=native -ffp-contract=fast"
"""Without -ffast-math, which would take the checks for NaN away."""


def c_files(
    program: Program, spec: Spec, *, prefix: str, sha256: str
) -> dict[str, str]:
    """The text of each file by its name.

    Args:
        program: of the policy.
        spec: of the environment.
        prefix: a C identifier, which begins the names of files, functions and types.
        sha256: of the specification, which the header holds.

    Raises:
        ConfigError: C99 has no type for an array.
    """
    face = Interface(spec, program, prefix, sha256)
    book = WeightBook()
    parts = [
        checks(program, face),
        encoding(program, face, book),
        deciding(program, face, book),
        choosing(face),
        *filter(None, [limiting(face)]),
        functions(face),
    ]
    source = "\n".join([_begin(face, book), *parts])
    layers = files("shoal.deploy.c").joinpath("layers.h").read_text(encoding="utf-8")
    note = f"/* The weights of {prefix}.c. */\n"
    return {
        f"{prefix}.h": header(face),
        f"{prefix}.c": source,
        f"{prefix}_layers.h": layers,
        f"{prefix}_weights.h": note + book.text(),
        "example.c": example(face),
        "Makefile": _makefile(prefix),
    }


def _begin(face: Interface, book: WeightBook) -> str:
    prefix = face.prefix
    return (
        f"/* The policy of {comment(face.spec.env_id)}, {book.count:,} weights; written by shoal, not to be edited.\n"
        f"   cc {FLAGS} -c {prefix}.c\n"
        "   Nothing is allocated, and nothing is kept between calls but what the caller hands in. */\n"
        f'#include "{prefix}.h"\n\n'
        f'#include "{prefix}_layers.h"\n'
        f'#include "{prefix}_weights.h"\n'
    )


def _makefile(prefix: str) -> str:
    return (
        f"# make: lib{prefix}.a, lib{prefix}.so and an example program; CFLAGS for another machine than this one.\n"
        f"CFLAGS ?= {FLAGS}\n\n"
        f"all: lib{prefix}.a lib{prefix}.so example\n\n"
        f"{prefix}.o: {prefix}.c {prefix}.h {prefix}_layers.h {prefix}_weights.h\n"
        f"\t$(CC) $(CFLAGS) -fPIC -c {prefix}.c -o $@\n\n"
        f"lib{prefix}.a: {prefix}.o\n\t$(AR) rcs $@ $^\n\n"
        f"lib{prefix}.so: {prefix}.o\n\t$(CC) -shared $^ -lm -o $@\n\n"
        f"example: example.c lib{prefix}.a\n\t$(CC) $(CFLAGS) example.c -o $@ lib{prefix}.a -lm\n\n"
        f"clean:\n\trm -f {prefix}.o lib{prefix}.a lib{prefix}.so example\n\n"
        ".PHONY: all clean\n"
    )
