"""SAC: soft actor-critic with automatic temperature (Haarnoja et al. 2018, arXiv 1812.05905)."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from torch import nn
from torch.optim import Adam

from shoal.envs.vec_env import VecEnv
from shoal.learn.critics import critics_loss, soft_actor_loss, soft_next_value
from shoal.learn.learner import Learner
from shoal.learn.targets import add_target, move_target
from shoal.math.q_learning import q_target
from shoal.math.rates import Schedule, apply_schedules, check_schedules
from shoal.memory.settings import Replay, for_each_step
from shoal.nets.actors import PlainActor, action_noise, make_stochastic
from shoal.nets.critics import make_critics
from shoal.nets.network import ActorCriticNet
from shoal.nets.temperature import make_temperature, temperature_loss
from shoal.run.run import Run
from shoal.types import Spec, check_finite, check_positive, check_ranges


@dataclass(frozen=True, slots=True)
class SAC:
    """Settings of SAC."""

    num_steps: int = 1
    """Steps of each environment between two times of learning; more make larger batches of acting."""
    batch_size: int = 256
    """Transitions of each gradient step; more give less noisy ones."""
    n_step: int = 1
    """Rewards before the critics' value; more learn faster from late rewards, with more variance."""
    learning_rate: float = 3e-4
    """Adam's step size for the actor and the temperature; larger learns faster but less stably."""
    learning_rate_schedule: Schedule = "constant"
    """Schedule of learning_rate: constant, linear or cosine (to 0 at total_timesteps), or a function."""
    critic_learning_rate: float = 1e-3
    """Adam's step size for the critics; larger learns faster but less stably."""
    critic_learning_rate_schedule: Schedule = "constant"
    """Schedule of critic_learning_rate: constant, linear or cosine (to 0 at total_timesteps), or a function."""
    gamma: float = 0.99
    """Discount factor; closer to 1 looks further ahead."""
    tau: float = 0.005
    """Share of the weights in each update of the target critics; smaller is more stable and slower."""
    ent_coef: float = 1.0
    """Temperature, what a nat of entropy is worth in rewards: larger explores more. With autotune the first one."""
    autotune: bool = True
    """Learn the temperature, so that the entropy comes to target_entropy."""
    target_entropy: float | None = None
    """Entropy in nats that autotune aims at; larger explores more. None: minus a Box's dimensions, or 0.5 log n."""
    replay: Replay = field(default_factory=for_each_step)
    """The replay memory; with samples_per_insert = batch_size there is a gradient step for every step."""
    network: ActorCriticNet = field(default_factory=ActorCriticNet)
    """Architecture of the default actor and of the critics."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        counts = ("num_steps", "batch_size", "n_step")
        ranges = dict.fromkeys(counts, (1, inf)) | {"gamma": (0, 1), "tau": (1e-9, 1)}
        check_ranges(self, **ranges)
        check_positive(self, "learning_rate", "critic_learning_rate", "ent_coef")
        check_finite(self, "learning_rate", "critic_learning_rate", "ent_coef")
        check_schedules(self)


Config = SAC
DEFAULTS = {"num_envs": 8}
PERTURBABLE = ("learning_rate", "critic_learning_rate", "gamma", "n_step", "tau")
PLAIN_POLICY = PlainActor


def make_policy(spec: Spec, cfg: SAC, seed: int) -> nn.Module:
    """The actor, its weights drawn from `seed`."""
    return make_stochastic(spec, cfg.network, seed)


def make_learner(cfg: SAC, spec: Spec, run: Run, member: int) -> Learner:
    """An agent: actor, critics, target critics and temperature."""
    learner = run.learner(run.policy(spec, member=member), Adam, lr=cfg.learning_rate)
    critics = make_critics(spec, cfg.network, run.seed + member, squash=True)
    learner.add("critics", critics, Adam, lr=cfg.critic_learning_rate)
    add_target(learner, "target", of="critics")
    temperature = make_temperature(spec, cfg.ent_coef, cfg.target_entropy)
    learner.add("temperature", temperature, Adam, lr=cfg.learning_rate)
    return learner


def train(cfg: SAC, env: VecEnv, run: Run) -> nn.Module:
    """Trains an actor until the run ends, or one for each agent; returns the first."""
    agents = run.members(cfg)
    learners = {
        name: make_learner(own, env.spec, run, member)
        for member, (name, own) in enumerate(agents.items())
    }
    stream = run.replay(env, learners, agents, cfg.replay)
    for batch in run.loop(stream, learners):
        cfg, learner = agents[stream.agent], learners[stream.agent]
        now = apply_schedules(cfg, run.progress, learner)
        learner.networks["critics"].learning_rate = now.critic_learning_rate
        learner.networks["temperature"].learning_rate = now.learning_rate
        noise = action_noise(env.spec, cfg.batch_size, run.rng)
        value = soft_next_value(learner, batch, noise)
        learned = q_target(batch.reward, batch.discount, value)
        learner.update(critics_loss, batch.with_target(learned), cfg, of="critics")
        noise = action_noise(env.spec, cfg.batch_size, run.rng)
        stats = learner.update(soft_actor_loss, (batch, noise), cfg, of="policy")
        if cfg.autotune:
            learner.update(temperature_loss, stats.entropy, cfg, of="temperature")
        move_target(learner, "target", of="critics", tau=cfg.tau)
        stream.prioritize(batch)
        stream.publish()
    return next(iter(learners.values())).policy
