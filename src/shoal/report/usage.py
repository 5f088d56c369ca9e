"""How a run's policy is used, as the pages of a run say it."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REGISTERED = re.compile(r".*-v\d+")
"""An id of Gymnasium's."""


def usage(path: Path, config: Mapping[str, object]) -> str:
    """Commands and lines of Python.

    Args:
        path: of the run.
        config: of it.
    """
    where, env = shlex.quote(str(path)), ""
    factory = ""
    own = _class_of(config.get("env"))
    if own:
        env = f" --env MODULE:{own}"
        factory = f", factory={own}"
    return (
        f"shoal eval {where}{env} --video episodes.mp4\n"
        f"shoal explain {where}{env}\n"
        f"shoal resume {where}{env}\n\n"
        "import shoal\n"
        f"agent = shoal.load({str(path)!r}{factory})\n"
        "action = agent.act(obs)"
    )


def _class_of(env: object) -> str:
    """The callable that a run was given, which nobody finds by its name alone; empty where the name is enough."""
    from shoal.envs import packages

    name = str(env)
    known = ":" in name or REGISTERED.fullmatch(name) or packages.has(name)
    return "" if known or not name.isidentifier() else name
