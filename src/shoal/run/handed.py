"""Handed over: objects that a run was given, which no file holds, by names that say how they are given again."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass

from shoal.types.text import printable

NAMED = re.compile(r"(?:\w+\.)*\w+:\w+")
"""What a command line takes: package.module:Class."""
SHORT = re.compile(r"\w+(?:\(\.\.\.\))?")
"""A name, or `Name(...)` for an object of that class."""
ANY = "YOURS"
"""Stands for a function without a name."""


@dataclass(frozen=True, slots=True)
class Handed:
    """One object: what its place is called here, and what stands there in a file."""

    option: str
    """Of the command line: --env or --policy."""
    keyword: str
    """Of `shoal.load` and `shoal.resume`: factory or policy."""
    name: str
    """As `name_of_object` writes it into a file, where anybody may have changed it."""

    @property
    def code(self) -> str:
        """As Python code has it."""
        short = self.name.rpartition(":")[2]
        return short if SHORT.fullmatch(short) else ANY

    @property
    def argument(self) -> str:
        """As a command line has it; MODULE stands for a module that nobody can import by its name."""
        if NAMED.fullmatch(self.name):
            return self.name
        made = self.code.endswith(")")
        return f"MODULE:{'NAME' if made else self.code}"

    @property
    def own(self) -> bool:
        """Whether it is an object of shoal's own, which follows from settings where those are the same."""
        return self.name.startswith("shoal.")

    @property
    def imported(self) -> str:
        """The line of Python that imports it; empty where nobody can."""
        module, _, name = self.name.partition(":")
        found = NAMED.fullmatch(self.name)
        return f"from {module} import {name}" if found else ""

    def on_command_line(self) -> str:
        """The option with its argument."""
        return f"{self.option} {self.argument}"

    def in_python(self) -> str:
        """The keyword with its argument."""
        return f"{self.keyword}={self.code}"


def environment(name: str) -> Handed:
    """An environment, by its name in a file."""
    return Handed("--env", "factory", name)


def policy(name: str) -> Handed:
    """A policy, by its name in a file."""
    return Handed("--policy", "policy", name)


def name_of_object(given: object) -> str:
    """The name of what a run was given; empty for nothing and for a name, which files hold as they are.

    `module:Class` where a command line finds it there, else `Class` alone; `module:Class(...)` for an object of one.
    """
    if given is None or isinstance(given, str):
        return ""
    if not (inspect.isclass(given) or inspect.isroutine(given)):
        kind = type(given)
        return printable(f"{kind.__module__}:{kind.__name__}(...)")
    name, module = given.__name__, given.__module__
    there = getattr(sys.modules.get(module), name, None) is given
    return printable(f"{module}:{name}" if there and module != "__main__" else name)
