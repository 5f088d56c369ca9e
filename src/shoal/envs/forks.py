"""Forks: an environment that forks, and lets the child come back from its call, leaves two processes in one place."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

STRAY_STATUS = 70
"""How a child that came back ends."""
tell: list[Callable[[str], None]] = []
"""Whom a child that came back tells so before it ends; nobody: it prints."""


def end_if_forked(pid: int, where: str) -> None:
    """Ends this process where it is not the one that made the call.

    Nothing of the user's program runs in it any more: no `finally`, no exit handler.

    Args:
        pid: of the process that called the environment.
        where: what was called, in words.
    """
    if os.getpid() == pid:
        return
    sentence = (
        f"{where} forked, and the child (pid {os.getpid()}) came back from the call too; it is ended. "
        "A child that an environment forks must leave by os._exit"
    )
    if not tell:
        sys.stderr.write(f"shoal: {sentence}\n")
        sys.stderr.flush()
    for told in tell:
        told(sentence)
    os._exit(STRAY_STATUS)
