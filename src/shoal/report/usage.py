"""How a run's policy is used, as the pages of a run say it."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from shoal.run.handed import environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shoal.run.handed import Handed
    from shoal.run.origin import Origin

REGISTERED = re.compile(r".*-v\d+")
"""An id of Gymnasium's."""


def usage(path: Path, config: Mapping[str, object], origin: Origin) -> str:
    """Commands and lines of Python.

    Args:
        path: of the run.
        config: of it.
        origin: of it, which names the objects that it was given.
    """
    again = origin.handed()
    if not origin.env:  # of an earlier version
        again = [*_class_of(config.get("env")), *again]
    where = " ".join(
        [shlex.quote(str(path)), *(one.on_command_line() for one in again)]
    )
    given = "".join(f", {one.in_python()}" for one in again)
    return "\n".join(
        [
            f"shoal eval {where}",
            f"shoal eval {where} --video episodes.mp4  # where the environment draws itself",
            f"shoal explain {where}",
            f"shoal resume {where}",
            "",
            "import shoal",
            *filter(None, (one.imported for one in again)),
            f"agent = shoal.load({str(path)!r}{given})",
            "action = agent.act(obs)",
        ]
    )


def _class_of(env: object) -> list[Handed]:
    """The callable that a run was given, which nobody finds by its name alone; none where the name is enough."""
    from shoal.envs import packages

    name = str(env)
    known = ":" in name or REGISTERED.fullmatch(name) or packages.has(name)
    return [] if known or not name.isidentifier() else [environment(name)]
