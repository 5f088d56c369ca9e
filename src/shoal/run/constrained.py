"""What a run may not have where a limit on costs is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.run.settings import Settings


def check_alone(s: Settings) -> None:
    """ConfigError where more than one policy learns or plays: a multiplier is of one policy's costs."""
    several = {
        "agents": s.learners > 1,
        "learners": s.ranks is not None,
        "self_play.every": bool(s.self_play.every),
    }
    for name, given in several.items():
        if given:
            raise ConfigError(
                f"{s.algo or 'this algorithm'} learns one policy under a limit on its costs, which {name} does not "
                "fit; leave it out"
            )
