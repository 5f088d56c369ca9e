"""Replay memories that actors keep: what fits them, and what they are told."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from shoal.learn.publishing import observes
from shoal.memory.replay import LEAST_SLOTS
from shoal.stream.actors.rows import ActorRows
from shoal.stream.actors.shard import Drawn, Sharding
from shoal.stream.replay import DrawsSequences
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.learner import Learner
    from shoal.memory.settings import Replay
    from shoal.run.settings import Settings
    from shoal.stream.replay import DrawsBatches


def sharding_of(
    s: Settings,
    env: VecEnv,
    learners: Mapping[str, Learner],
    cfgs: Mapping[str, DrawsBatches],
    replay: Replay,
) -> Sharding:
    """How each actor keeps its steps.

    Raises:
        ConfigError: a setting of the run that does not go with it, and what would.
    """
    for why in _misfits(s, env, learners, cfgs, replay):
        raise ConfigError(f"replay.shards: {why}")
    return Sharding(
        slots=max(
            ceil(replay.buffer_size / env.num_rows),
            LEAST_SLOTS * max(1, env.spec.frame_stack),
        ),
        reward_scale=s.reward_scale,
        agents={
            name: Drawn(cfg.batch_size, cfg.n_step, cfg.gamma)
            for name, cfg in cfgs.items()
        },
        alpha=replay.alpha,
        recency=replay.recency,
    )


def _misfits(
    s: Settings,
    env: VecEnv,
    learners: Mapping[str, Learner],
    cfgs: Mapping[str, DrawsBatches],
    replay: Replay,
) -> Iterator[str]:
    """Why settings do not go with memories of actors, each with what would."""
    if not isinstance(env, ActorRows):
        yield "there are no actors to keep steps; set actors to 1 or more, or leave it out"
    if any(isinstance(cfg, DrawsSequences) for cfg in cfgs.values()):
        yield "sequences are drawn from one memory; set it to false"
    if replay.file:
        yield "no file holds what lies in several processes; set replay.file or this to false"
    if replay.hindsight:
        yield "goals change in the learner's own memory; set replay.hindsight=0, or this to false"
    if s.data.folder is not None:
        yield "a batch is not drawn from a data set and from actors; leave data out, or set this to false"
    if replay.inserted_size:
        yield "no steps are inserted into memories of actors; set replay.inserted_size=0, or this to false"
    if len(cfgs) > 1 and (s.population.mixing or s.population.memory == "private"):
        yield (
            "every step of every shard is as likely for all agents; leave population.mixing and population.memory at "
            "their defaults, or set this to false"
        )
    if any(observes(learner.policy) for learner in learners.values()):
        yield (
            "observations are normalized by those that the learner sees, and they stay with the actors; set "
            "network.normalize_obs=false"
        )
