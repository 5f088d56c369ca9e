"""What a stream of rollouts in this process is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.stream.in_process import InProcess

if TYPE_CHECKING:
    from shoal.stream.rollouts import Rollouts


def inside(stream: Rollouts | Any) -> InProcess:
    """Where its rows act."""
    found = stream.collects
    assert isinstance(found, InProcess)
    return found
