"""Streams as a run gives them to its algorithm: with its schedule, acting and rewards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from shoal.memory.data import read_data
from shoal.memory.hindsight import Hindsight, check_goals, goals_of
from shoal.nets import distributions
from shoal.run.settings import check_rows
from shoal.stream.data import DataDraws
from shoal.stream.replay import ReplayStream
from shoal.stream.rewards import Rewards
from shoal.stream.rollouts import rollouts
from shoal.stream.schedules import schedule
from shoal.stream.self_play import against
from shoal.types import ConfigError, map_tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.learner import Learner
    from shoal.memory.settings import Replay
    from shoal.run.run import Run
    from shoal.stream.replay import DrawsBatches
    from shoal.stream.rollouts import Rollouts
    from shoal.stream.self_play import PastVersions
    from shoal.types import Tree


def rollouts_of(
    run: Run, env: VecEnv, learner: Learner, num_steps: int
) -> Rollouts | PastVersions:
    """The stream of rollouts [num_steps, B], with the schedule and the opponents of the run's settings."""
    s = run.settings
    check_rows(env.num_rows, env.spec.num_agents, s.num_envs)
    if s.data.folder is not None:
        raise ConfigError(
            f"data={s.data.folder!r} would not be learned from: {s.algo or 'this algorithm'} has no replay memory; "
            "leave it out, or choose an off-policy algorithm (`shoal algos` lists all)"
        )
    return against(
        s.self_play,
        env,
        learner,
        num_steps=num_steps,
        schedule=schedule(s.schedule),
        acting=run.acting,
        meter=run.meter,
        rewards=Rewards(s.reward_scale, s.reward_gamma),
    )


def replay_of(
    run: Run, env: VecEnv, learner: Learner, cfg: DrawsBatches, settings: Replay
) -> ReplayStream:
    """The stream of transitions from a replay memory that `env` fills, acted by the learner's weights.

    Raises:
        ConfigError: a setting of the run that a replay memory cannot have.
    """
    s = run.settings
    check_rows(env.num_rows, env.spec.num_agents, s.num_envs)
    if s.self_play.every:
        raise ConfigError(
            "self-play needs rollouts: a memory of past steps would mix its opponents; set self_play.every=0"
        )
    if s.reward_gamma is not None:
        raise ConfigError(
            "normalize_reward changes with time, which a memory of past rewards does not; choose reward_scale"
        )
    stream = rollouts(
        env,
        learner,
        num_steps=cfg.num_steps,
        schedule=schedule(s.schedule),
        acting=run.acting,
        meter=run.meter,
        rewards=Rewards(s.reward_scale),
    )
    file = None
    if settings.file:
        if run.directory is None:
            raise ConfigError(
                "replay.file needs a run directory, and this run keeps nothing; set it to false"
            )
        file = run.directory.replay
    made = ReplayStream(
        stream,
        settings,
        cfg=cfg,
        total_timesteps=s.total_timesteps,
        file=file,
        data=data_of(run, env, learner, cfg, settings),
    )
    if settings.hindsight:
        check_goals(env.spec)
        if cfg.n_step > 1:
            raise ConfigError(
                f"replay.hindsight makes rewards of one step anew, and n_step={cfg.n_step} sums several; set one of "
                "them to its default"
            )
        made.hindsight = Hindsight(
            made.memory,
            goals_of(env),
            share=settings.hindsight,
            gamma=cfg.gamma,
            seed=s.seed,
            reward_scale=s.reward_scale,
        )
    return made


def data_of(
    run: Run, env: VecEnv, learner: Learner, cfg: DrawsBatches, settings: Replay
) -> DataDraws | None:
    """What is drawn from the run's data set; None where it has none.

    Raises:
        ConfigError: there is none, it is damaged or of another environment, or the policy cannot take its actions.
    """
    s = run.settings
    if s.data.folder is None:
        return None
    policy, device = learner.policy, torch.device(s.device)

    def from_env(action: Tree) -> Tree:
        first = map_tree(as_tensor, env.spec.observation.allocate(1, 1))
        given = map_tree(torch.from_numpy, action)
        with torch.no_grad():
            start = torch.ones((1, 1), dtype=torch.bool, device=device)
            initial: Any = policy.initial_state
            distribution = policy(first, initial(1), start).distribution
            kept = distributions.from_env(distribution, map_tree(as_tensor, given))
        return map_tree(as_array, kept)

    def as_tensor(array: Any) -> torch.Tensor:
        return torch.as_tensor(array, device=device)

    def as_array(tensor: torch.Tensor) -> NDArray[Any]:
        return tensor.cpu().numpy()

    data = read_data(
        Path(s.data.folder), env.spec, from_env, reward_scale=s.reward_scale
    )
    run.data_sha256 = data.sha256
    return DataDraws(data, env.spec, s.data, cfg, seed=s.seed, replay=settings)
