"""Streams as a run gives them to its algorithm: with its schedule, acting and rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from shoal.learn.curiosity import Bonuses, Distillation
from shoal.learn.publishing import observe_all
from shoal.learn.taken import inverse_of
from shoal.memory.data import read_data
from shoal.memory.hindsight import Hindsight, check_goals, goals_of
from shoal.memory.insertion import check_insertable
from shoal.memory.replay import ReplayMemory
from shoal.run.members import ONE, SEED_STEP, mixing_of, rows_of_members
from shoal.run.sequences import check_drawn
from shoal.run.settings import check_rows
from shoal.run.shards import sharding_of
from shoal.stream.data import DataDraws, DataStream
from shoal.stream.in_process import Wanted
from shoal.stream.members import MemberRollouts
from shoal.stream.replay import ReplayStream
from shoal.stream.rewards import Rewards
from shoal.stream.rollouts import rollouts
from shoal.stream.self_play import against
from shoal.stream.shards import sharded
from shoal.types import ConfigError, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.acting import Acting
    from shoal.learn.learner import Learner
    from shoal.memory.data import Data
    from shoal.memory.settings import Replay
    from shoal.run.run import Run
    from shoal.run.settings import Settings
    from shoal.stream.actors.shard import Sharding
    from shoal.stream.replay import DrawsBatches
    from shoal.stream.rollouts import Rollouts
    from shoal.stream.self_play import PastVersions
    from shoal.types import Spec, Tree


def rollouts_of(
    run: Run,
    env: VecEnv,
    learner: Learner | Mapping[str, Learner],
    num_steps: int,
    *,
    latest: bool = False,
) -> Rollouts | PastVersions | MemberRollouts:
    """The stream of rollouts [num_steps, B], with the schedule and the opponents of the run's settings.

    With `latest` they come with what their rows saw after the last step.

    Raises:
        ConfigError: a setting of the run that rollouts, or those of several agents, cannot have.
    """
    s = run.settings
    check_rows(env.num_rows, env.spec.num_agents, s.own_envs)
    if s.data.folder is not None:
        raise ConfigError(
            f"data={s.data.folder!r} would not be learned from: {s.algo or 'this algorithm'} has no replay memory; "
            "leave it out, or choose an off-policy algorithm (`shoal algos` lists all)"
        )
    learners = learner if isinstance(learner, Mapping) else {ONE: learner}
    role = "learner" if s.self_play.every else "all"
    names = list(learners) if len(learners) > 1 else [role]
    bonuses = bonuses_of(run, env, names)
    rewards = Rewards(s.reward_scale, s.reward_gamma, bonuses)
    acting = replace(run.acting, latest=latest)
    if len(learners) > 1:
        if s.self_play.every:
            raise ConfigError(
                "self-play against past versions is for one agent; set agents=1 or self_play.every=0"
            )
        return MemberRollouts(_steps_of(run, env, learners, num_steps, rewards, acting))
    return against(
        s.self_play,
        env,
        next(iter(learners.values())),
        num_steps=num_steps,
        schedule=s.timing,
        acting=acting,
        meter=run.meter,
        rewards=rewards,
    )


def _steps_of(
    run: Run,
    env: VecEnv,
    learners: Mapping[str, Learner],
    num_steps: int,
    rewards: Rewards,
    acting: Acting,
    *,
    sharding: Sharding | None = None,
) -> Rollouts:
    """Rollouts of all rows, with what `acting` wants of them.

    Of several learners each acts for its own rows, as its role.
    """
    s = run.settings
    rows = rows_of_members(env.num_rows, s.num_envs, len(learners))
    who = learners if len(learners) > 1 else learners[ONE]
    cast = rows if len(learners) > 1 else None
    if sharding is not None:
        wanted = Wanted(who, num_steps, s.timing, cast, acting, sharding)
        return sharded(env, wanted, run.meter)
    return rollouts(
        env,
        who,
        num_steps=num_steps,
        schedule=s.timing,
        cast=cast,
        acting=acting,
        meter=run.meter,
        rewards=rewards,
    )


def replay_of(
    run: Run,
    env: VecEnv,
    learner: Learner | Mapping[str, Learner],
    cfg: DrawsBatches | Mapping[str, DrawsBatches],
    settings: Replay,
) -> ReplayStream:
    """The stream of transitions from a replay memory that `env` fills, acted by the learners' weights.

    Of settings with a `sequence_length` it is one of sequences with recurrent states.

    Raises:
        ConfigError: a setting of the run that a replay memory cannot have.
    """
    s = run.settings
    check_replays(s)
    check_rows(env.num_rows, env.spec.num_agents, s.own_envs)
    learners = learner if isinstance(learner, Mapping) else {ONE: learner}
    cfgs = cfg if isinstance(cfg, Mapping) else {ONE: cfg}
    num_steps = next(iter(cfgs.values())).num_steps
    states = check_drawn(s, learners, cfgs, settings, env.num_rows)
    sharding = None
    if settings.shards:
        sharding = sharding_of(s, env, learners, cfgs, settings)
    rewards = Rewards(s.reward_scale)
    # What rows did is for the memory, where an action guard may change what was chosen.
    acting = replace(run.acting, values=False, states=states, executed=env.spec.guarded)
    stream = _steps_of(
        run, env, learners, num_steps, rewards, acting, sharding=sharding
    )
    rows = rows_of_members(env.num_rows, s.num_envs, len(learners))
    return made_replay(run, stream, learners, cfgs, rows, settings)


def check_replays(s: Settings) -> None:
    """ConfigError where a run has what a memory of past steps cannot have."""
    check_single(s)
    if s.self_play.every:
        raise ConfigError(
            "self-play needs rollouts: a memory of past steps would mix its opponents; set self_play.every=0"
        )
    if s.reward_gamma is not None:
        raise ConfigError(
            "normalize_reward changes with time, which a memory of past rewards does not; choose reward_scale"
        )


def check_single(s: Settings) -> None:
    """ConfigError where several processes learn together: their batches must be of rollouts."""
    if s.ranks is not None:
        raise ConfigError(
            f"learners={s.ranks.size} share rollouts, and {s.algo or 'this algorithm'} learns from a memory or a data "
            "set; set learners=1, or choose an algorithm on rollouts (`shoal algos` lists all)"
        )


def made_replay(
    run: Run,
    stream: Rollouts,
    learners: Mapping[str, Learner],
    cfgs: Mapping[str, DrawsBatches],
    rows: Mapping[str, slice],
    settings: Replay,
) -> ReplayStream:
    """Transitions for some learners from a memory that rollouts fill; `rows`: those of each role of the rollouts.

    Raises:
        ConfigError: a setting that cannot work, with one that would.
    """
    s, env = run.settings, stream.env
    made = ReplayStream(
        stream,
        settings,
        agents=cfgs,
        rows=rows,
        mixing=mixing_of(s.population, len(learners)),
        total_timesteps=s.total_timesteps,
        file=_file_of(run, settings),
        data=data_of(run, env, learners, cfgs, settings),
    )
    made.bonuses = bonuses_of(run, env, list(cfgs))
    if settings.hindsight:
        made.hindsight = _hindsight_of(
            made, env, cfgs, settings, s.seed, s.reward_scale
        )
    return made


def bonuses_of(run: Run, env: VecEnv, names: Sequence[str]) -> Bonuses | None:
    """The curiosity of agents, or of the roles that learn, by name; None where they have none.

    Raises:
        ConfigError: the environment is a game of turns.
    """
    s = run.settings
    cfg = s.curiosity
    if not cfg.coef:
        return None
    if env.spec.in_turns:
        raise ConfigError(
            f"{env.spec.env_id} is a game of turns, where what follows a step comes later; set curiosity.coef=0"
        )
    made: dict[str, Distillation] = {}
    for number, name in enumerate(names):
        if cfg.share and made:
            made[name] = made[names[0]]
            continue
        seed = s.seed + number * SEED_STEP
        made[name] = Distillation(env.spec, cfg, hardware=s.hardware, seed=seed)
    return Bonuses(made, cfg.coef, run.metrics.add)


def _hindsight_of(
    stream: ReplayStream,
    env: VecEnv,
    cfgs: Mapping[str, DrawsBatches],
    settings: Replay,
    seed: int,
    reward_scale: float,
) -> Hindsight:
    """What changes the goals of an agent's batches.

    Raises:
        ConfigError: there are no goals, several agents, or transitions of several steps.
    """
    check_goals(env.spec)
    if len(cfgs) > 1:
        raise ConfigError(
            f"replay.hindsight is for one agent; leave agents={len(cfgs)} out"
        )
    cfg = next(iter(cfgs.values()))
    if cfg.n_step > 1:
        raise ConfigError(
            f"replay.hindsight makes rewards of one step anew, and n_step={cfg.n_step} sums several; set one of "
            "them to its default"
        )
    assert isinstance(stream.memory, ReplayMemory)
    return Hindsight(
        stream.memory,
        goals_of(env),
        share=settings.hindsight,
        gamma=cfg.gamma,
        seed=seed,
        reward_scale=reward_scale,
    )


def _file_of(run: Run, settings: Replay) -> Path | None:
    """Where the memory lies, if it is kept in a file."""
    if not settings.file:
        return None
    if run.directory is None:
        raise ConfigError(
            "replay.file needs a run directory, and this run keeps nothing; set it to false"
        )
    return run.directory.replay


def data_of(
    run: Run,
    env: VecEnv,
    learners: Mapping[str, Learner],
    cfgs: Mapping[str, DrawsBatches],
    settings: Replay,
) -> DataDraws | None:
    """What is drawn from the run's data set and from what is inserted; None where it has no room for either.

    Raises:
        ConfigError: there is none, it is damaged or of another environment, the policy cannot take its actions, or
            there are several agents.
    """
    s, size = run.settings, settings.inserted_size
    if not size:
        run.memory.refuse()
    if s.data.folder is None and not size:
        return None
    if len(learners) > 1:
        given = f"data={s.data.folder!r}"
        if s.data.folder is None:
            given = f"what replay.inserted_size={size:,} makes room for"
        raise ConfigError(
            f"{given} is learned from by one agent; leave agents={len(learners)} out"
        )
    (learner,), (cfg,) = learners.values(), cfgs.values()
    inverse = inverse_of(learner.policy, env.spec, torch.device(s.device))
    data = None if s.data.folder is None else _read(run, env.spec, inverse)
    if size:
        check_insertable(env.spec)
    draws = DataDraws(data, env.spec, s.data, cfg, seed=s.seed, replay=settings)
    if s.data.fraction and not draws.count:
        raise ConfigError(
            f"data_fraction={s.data.fraction:g} of batch_size={cfg.batch_size} is no whole transition; set it to at "
            f"least {1 / cfg.batch_size:g}, or batch_size to more"
        )
    if size:
        run.memory.open(draws.outside, inverse, reward_scale=s.reward_scale)
    return draws


def data_stream_of(
    run: Run, env: VecEnv, learner: Learner, batch_size: int
) -> DataStream:
    """Batches of the run's data set alone, whose observations a policy's statistics are of.

    Raises:
        ConfigError: there is none, it does not fit, the run is to take steps, or the policy has a memory.
    """
    s = run.settings
    check_single(s)
    algo = s.algo or "this algorithm"
    if s.data.folder is None:
        raise ConfigError(
            f"{algo} learns from a data set alone; name one: data=FOLDER, as `shoal record RUN` writes it"
        )
    if s.total_timesteps or not s.data.updates:
        raise ConfigError(
            f"{algo} takes no environment step: leave total_timesteps at 0, and set offline_updates to the gradient "
            "steps that it is to make"
        )
    if learner.recurrent:
        raise ConfigError(
            f"{algo} draws single steps, which a policy with a memory cannot learn from; set network.recurrent to none"
        )
    inverse = inverse_of(learner.policy, env.spec, torch.device(s.device))
    data = _read(run, env.spec, inverse)
    device = torch.device(s.device)

    def together(array: Any) -> torch.Tensor:
        return torch.as_tensor(array, device=device).flatten(0, 1)

    observe_all(learner.policy, map_tree(together, data.steps.obs))
    return DataStream(data, env.spec, learner, batch_size=batch_size, seed=s.seed)


def _read(run: Run, spec: Spec, inverse: Callable[[Tree], Tree]) -> Data:
    """The run's data set, its actions as a policy keeps them."""
    s = run.settings
    folder = Path(s.data.folder or "")
    data = read_data(folder, spec, inverse, reward_scale=s.reward_scale)
    run.memory.data_sha256 = data.sha256
    return data
