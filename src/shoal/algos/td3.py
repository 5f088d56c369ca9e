"""TD3: twin delayed deterministic policy gradient (Fujimoto et al. 2018, arXiv 1802.09477)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Adam

from shoal.envs.vec_env import VecEnv
from shoal.learn.critics import (
    Smoothing,
    critics_loss,
    native_deterministic_actor,
    smoothed_next_value,
)
from shoal.learn.learner import Learner
from shoal.learn.losses import lowered
from shoal.learn.targets import add_target, move_target
from shoal.math.q_learning import q_target
from shoal.math.rates import Schedule, apply_schedules, check_schedules
from shoal.memory.settings import Replay, for_each_step
from shoal.nets.actors import PlainActor, action_noise, make_deterministic, policy_of
from shoal.nets.critics import make_critics
from shoal.nets.network import ActorCriticNet
from shoal.run.run import Run
from shoal.types import Spec, Transitions, check_finite, check_positive, check_ranges


@dataclass(frozen=True, slots=True)
class TD3:
    """Settings of TD3."""

    num_steps: int = 1
    """Steps of each environment between two times of learning; more make larger batches of acting."""
    batch_size: int = 256
    """Transitions of each gradient step; more give less noisy ones."""
    n_step: int = 1
    """Rewards before the critics' value; more learn faster from late rewards, with more variance."""
    learning_rate: float = 1e-3
    """Adam's step size for the actor; larger learns faster but less stably."""
    learning_rate_schedule: Schedule = "constant"
    """Schedule of learning_rate: constant, linear or cosine (to 0 at total_timesteps), or a function."""
    critic_learning_rate: float = 1e-3
    """Adam's step size for the critics; larger learns faster but less stably."""
    critic_learning_rate_schedule: Schedule = "constant"
    """Schedule of critic_learning_rate: constant, linear or cosine (to 0 at total_timesteps), or a function."""
    gamma: float = 0.99
    """Discount factor; closer to 1 looks further ahead."""
    tau: float = 0.005
    """Share of the weights in each update of the target networks; smaller is more stable and slower."""
    policy_frequency: int = 2
    """Steps of the critics for each of the actor; more let the critics settle."""
    exploration_noise: float = 0.1
    """Deviation of the noise on actions in [-1, 1] that are taken; larger explores more widely."""
    policy_noise: float = 0.2
    """Deviation of the noise on the target's actions; larger smooths the critics' values over more actions."""
    noise_clip: float = 0.5
    """Most that this noise may be; larger lets the target leave the policy further."""
    replay: Replay = field(default_factory=for_each_step)
    """The replay memory; with samples_per_insert = batch_size there is a gradient step for every step."""
    network: ActorCriticNet = field(default_factory=ActorCriticNet)
    """Architecture of the default actor and of the critics."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        counts = ("num_steps", "batch_size", "n_step", "policy_frequency")
        check_ranges(self, **dict.fromkeys(counts, (1, inf)))
        check_ranges(self, gamma=(0, 1), tau=(1e-9, 1))
        noises = ("exploration_noise", "policy_noise", "noise_clip")
        check_ranges(self, **dict.fromkeys(noises, (0, 2)))
        check_positive(self, "learning_rate", "critic_learning_rate")
        check_finite(self, "learning_rate", "critic_learning_rate")
        check_schedules(self)


Config = TD3
DEFAULTS = {"num_envs": 8}
PERTURBABLE = (
    "learning_rate",
    "critic_learning_rate",
    "gamma",
    "n_step",
    "tau",
    "exploration_noise",
    "policy_noise",
    "noise_clip",
    "policy_frequency",
)
PLAIN_POLICY = partial(PlainActor, deterministic=True)


def make_policy(spec: Spec, cfg: TD3, seed: int) -> nn.Module:
    """The actor, its weights drawn from `seed`."""
    return make_deterministic(spec, cfg.network, seed)


def train(cfg: TD3, env: VecEnv, run: Run) -> nn.Module:
    """Trains an actor until the run ends, or one for each agent; returns the first."""
    agents, learners = run.members(cfg), dict[str, Learner]()
    for member, (name, cfg) in enumerate(agents.items()):
        policy = run.policy(env.spec, member=member)
        learners[name] = learner = run.learner(policy, Adam, lr=cfg.learning_rate)
        seed = run.seed + member
        critics = make_critics(env.spec, cfg.network, seed, squash=False)
        learner.add("critics", critics, Adam, lr=cfg.critic_learning_rate)
        add_target(learner, "target")
        add_target(learner, "target_critics", of="critics")
    stream = run.replay(env, learners, agents, cfg.replay)
    for name, cfg in agents.items():
        stream.explore(cfg.exploration_noise, name)
    for batch in run.loop(stream, learners):
        cfg, learner = agents[stream.agent], learners[stream.agent]
        now = apply_schedules(cfg, run.progress, learner)
        learner.networks["critics"].learning_rate = now.critic_learning_rate
        noise = action_noise(env.spec, cfg.batch_size, run.rng)
        smoothing = Smoothing(cfg.policy_noise, cfg.noise_clip)
        value = smoothed_next_value(learner, batch, noise, smoothing)
        learned = q_target(batch.reward, batch.discount, value)
        learner.update(critics_loss, batch.with_target(learned), cfg, of="critics")
        # Of policy_frequency + 1 updates the last one is the actor's.
        if learner.updates % (cfg.policy_frequency + 1) == cfg.policy_frequency:
            learner.update(td3_actor_loss, batch, cfg, of="policy")
            move_target(learner, "target", tau=cfg.tau)
            move_target(learner, "target_critics", of="critics", tau=cfg.tau)
        stream.prioritize(batch)
        stream.explore(cfg.exploration_noise)
        stream.publish()
    return next(iter(learners.values())).policy


class TD3Statistics(NamedTuple):
    """A mean over a batch."""

    policy: Tensor


@lowered(TD3Statistics, native_deterministic_actor)
def td3_actor_loss(
    networks: Mapping[str, Any], batch: Transitions, cfg: TD3
) -> tuple[Tensor, TD3Statistics]:
    """The mean of -Q_1(s, pi(s)): the first critic's."""
    action = policy_of(networks["policy"], batch.obs, None).mode()
    loss = -networks["critics"](batch.obs, action, first=True).mean()
    return loss, TD3Statistics(loss)
