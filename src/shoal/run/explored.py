"""Explored: the stream of an actor that learns from a memory and of explorers beside it, as a run gives it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.learn.minibatches import check_minibatches
from shoal.run.settings import check_rows
from shoal.run.streams import check_replays, made_replay
from shoal.stream.explorers import ExploredReplay
from shoal.stream.rewards import Rewards
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError, map_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.learner import Learner
    from shoal.memory.settings import Replay
    from shoal.nets.distributions import Distribution
    from shoal.run.run import Run
    from shoal.run.settings import Settings
    from shoal.stream.explorers import HasExplorers
    from shoal.types import Spec

COMPARED = 16
"""Actions by which two policies are compared."""


def explored_of(
    run: Run,
    env: VecEnv,
    learners: Mapping[str, Learner],
    cfg: HasExplorers,
) -> ExploredReplay:
    """The stream of transitions for the first of two learners, and of the second one's own rollouts.

    Raises:
        ConfigError: a setting of the run that it cannot have, no rows for one of them, or actions that the two of them
            keep in different forms.
    """
    s, explorers = run.settings, cfg.explorers
    check_replays(s)
    check_rows(env.num_rows, env.spec.num_agents, s.num_envs)
    check_alone(s, env.spec, cfg.replay)
    rows = rows_of_roles(env.num_rows, s.num_envs, explorers.share, tuple(learners))
    actor, explorer = (learner.policy for learner in learners.values())
    check_same_actions(env.spec, actor, explorer, torch.device(s.device))
    stream = rollouts(
        env,
        learners,
        num_steps=cfg.num_steps,
        schedule=s.timing,
        cast=rows,
        acting=replace(run.acting, values=True, executed=env.spec.guarded),
        meter=run.meter,
        rewards=Rewards(s.reward_scale),
    )
    first = next(iter(learners))
    one, who = {first: cfg}, {first: learners[first]}
    replay = made_replay(run, stream, who, one, rows, cfg.replay)
    made = ExploredReplay(replay, stream, explorers.num_steps, run.metrics.add)
    check_minibatches(made.explored_shape, explorers, whole_rows=False)
    return made


def rows_of_roles(
    num_rows: int, num_envs: int, share: float, names: tuple[str, ...]
) -> dict[str, slice]:
    """The rows of the actor and, behind them, of its explorers: whole environments of both.

    Raises:
        ConfigError: one of them has none.
    """
    exploring = round(share * num_envs)
    if num_envs < 2:
        raise ConfigError(
            f"num_envs={num_envs} cannot be divided between explorers and the actor; set it to 2 or more"
        )
    if not 0 < exploring < num_envs:
        least = 1 / num_envs
        raise ConfigError(
            f"explorers.share={share:g} of num_envs={num_envs} environments are {exploring}, which leaves "
            f"{'no explorers' if not exploring else 'none to the actor'}; set it between {least:g} and {1 - least:g}"
        )
    border = num_rows - exploring * (num_rows // num_envs)
    actor, explorer = names
    return {actor: slice(0, border), explorer: slice(border, num_rows)}


def check_alone(s: Settings, spec: Spec, replay: Replay) -> None:
    """ConfigError where a run has what explorers cannot be beside."""
    algo = s.algo or "this algorithm"
    if s.learners > 1:
        raise ConfigError(
            f"{algo} trains one actor with its explorers, which is one agent; leave agents={s.learners} out"
        )
    if replay.shards:
        raise ConfigError(
            f"replay.shards keeps steps where they are collected, and {algo} learns from its explorers' rollouts; set "
            "it to false"
        )
    if s.curiosity.coef:
        raise ConfigError(
            f"curiosity.coef={s.curiosity.coef:g} would be in the explorers' rewards and not in those of the memory; "
            f"with {algo} the explorers are what explores: set it to 0"
        )
    if spec.in_turns:
        raise ConfigError(
            f"{spec.env_id} is a game of turns, in which explorers may come to no step; choose another algorithm "
            "(`shoal algos` lists all)"
        )


def check_same_actions(
    spec: Spec, actor: nn.Module, explorer: nn.Module, device: torch.device
) -> None:
    """ConfigError unless an action that one policy keeps in the memory is the same to the other one.

    What the explorer would keep of some actions is given to both, which must hand the same to the environment.
    """
    mine, own = (_distribution(policy, spec, device) for policy in (actor, explorer))
    kind, size = own.noise, (COMPARED, own.noise_size)
    rng = np.random.default_rng(0)
    noise = rng.random(size) if kind == "uniform" else rng.standard_normal(size)
    with torch.no_grad():
        kept = own.sample(torch.from_numpy(noise.astype(np.float32)).to(device))
        if torch.equal(mine.to_env(kept), own.to_env(kept)):
            return
    raise ConfigError(
        f"the actor keeps its actions as {type(mine).__name__} does and the explorers as {type(own).__name__}, but "
        "they share one memory; set explorers.network.squash to true, or give an actor of the same kind"
    )


def _distribution(policy: nn.Module, spec: Spec, device: torch.device) -> Distribution:
    """What a policy says of observations of zeros [COMPARED, ...]."""
    as_tensor = partial(torch.as_tensor, device=device)
    obs = map_tree(as_tensor, spec.observation.allocate(1, COMPARED))
    made: Any = policy
    start = torch.ones((1, COMPARED), dtype=torch.bool, device=device)
    with torch.no_grad():
        return made(obs, made.initial_state(COMPARED), start).distribution
