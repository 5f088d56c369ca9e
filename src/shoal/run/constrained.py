"""What a run may not have where a limit on costs is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.stream.rollouts import Rollouts
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv
    from shoal.learn.learner import Learner
    from shoal.run.run import Run
    from shoal.run.settings import Settings


def rollouts_alone(run: Run, env: VecEnv, learner: Learner, num_steps: int) -> Rollouts:
    """The run's rollouts of a policy that learns and plays alone: a multiplier is of one policy's costs.

    Raises:
        ConfigError: others learn or play beside it.
    """
    _check_alone(run.settings)
    stream = run.rollouts(env, learner, num_steps=num_steps)
    assert isinstance(stream, Rollouts)
    return stream


def _check_alone(s: Settings) -> None:
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
