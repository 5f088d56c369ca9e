"""How a run's policy is used, as the pages of a run say it."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from shoal.run.handed import environment
from shoal.run.origin import LANGUAGE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shoal.run.handed import Handed
    from shoal.run.origin import Origin

REGISTERED = re.compile(r".*-v\d+")
"""An id of Gymnasium's."""
MASK = ', action_mask=info["action_mask"]'
UNSAVED = (
    "there is no checkpoint yet, so nothing to ask or to load; this begins at step 0"
)


def usage(
    path: Path,
    config: Mapping[str, object],
    origin: Origin,
    *,
    saved: bool = True,
    masked: bool = False,
) -> str:
    """Commands and lines of Python.

    Args:
        path: of the run.
        config: of it.
        origin: of it, which names the objects that it was given.
        saved: whether it has a checkpoint.
        masked: whether its environment has action masks beside the observations.
    """
    again = origin.handed()
    if not origin.env:  # of an earlier version
        again = [*_class_of(config.get("env")), *again]
    run = shlex.quote(str(path))
    where = " ".join([run, *(one.on_command_line() for one in again)])
    given = "".join(f", {one.in_python()}" for one in again)
    if not saved:
        return f"shoal resume {where}  # {UNSAVED}"
    lines = [
        *_commands(run, where, origin.unexplained),
        f"shoal resume {where}",
        "",
        "import shoal",
        *filter(None, (one.imported for one in again)),
        f"agent = shoal.load({str(path)!r}{given})",
        f"action = agent.act(obs{MASK if masked else ''})",
    ]
    if origin.unexplained == LANGUAGE:
        lines[-1] = 'answer = agent.answer("...")'
    return "\n".join(lines)


def _commands(run: str, where: str, unexplained: str) -> list[str]:
    """Those that ask the policy, of which each works for what it is."""
    if unexplained == LANGUAGE:
        return [f"shoal eval {where}", f"shoal chat {run}", f"shoal push {run} FOLDER"]
    video = "--video episodes.mp4  # where the environment draws itself"
    explain = [] if unexplained else [f"shoal explain {where}"]
    return [f"shoal eval {where}", f"shoal eval {where} {video}", *explain]


def _class_of(env: object) -> list[Handed]:
    """The callable that a run was given, which nobody finds by its name alone; none where the name is enough."""
    from shoal.envs import packages

    name = str(env)
    known = ":" in name or REGISTERED.fullmatch(name) or packages.has(name)
    return [] if known or not name.isidentifier() else [environment(name)]
