"""PPO explorers beside SAC: both act, one memory keeps all their steps, and an actor with critics learns from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import NamedTuple

from torch import Tensor, nn, optim

from shoal.envs.vec_env import VecEnv
from shoal.learn.critics import critics_loss, soft_actor_loss, soft_next_value
from shoal.learn.learner import Learner
from shoal.learn.losses import prepared, targets_of, with_normalized_advantage
from shoal.learn.minibatches import minibatches
from shoal.learn.targets import add_target, move_target
from shoal.math.losses import masked_mean, ppo_policy_loss, value_loss
from shoal.math.q_learning import q_target
from shoal.math.rates import Schedule, apply_schedules, check_schedules
from shoal.math.returns import gae
from shoal.memory.settings import Replay, for_each_step
from shoal.nets import policy as policies
from shoal.nets.actors import PlainActor, action_noise, make_stochastic
from shoal.nets.critics import make_critics
from shoal.nets.distributions import masked
from shoal.nets.network import ActorCriticNet
from shoal.nets.policy import Output
from shoal.nets.temperature import make_temperature, temperature_loss
from shoal.run.members import SEED_STEP
from shoal.run.run import Run
from shoal.stream.explorers import Explorers
from shoal.types import Spec, Steps, Transitions, check_positive, check_ranges


@dataclass(frozen=True, slots=True)
class PPOSAC:
    """Settings of the actor that learns from the memory; those of the explorers are in `explorers`."""

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
    """Discount factor, of the explorers too; closer to 1 looks further ahead."""
    tau: float = 0.005
    """Share of the weights in each update of the target critics; smaller is more stable and slower."""
    target_entropy: float | None = None
    """Entropy in nats that the actor comes to; larger explores more. None: minus a Box's dimensions, or 0.5 log n."""
    explorers: Explorers = field(default_factory=Explorers)
    """The policy that explores, and learns on-policy from its own rollouts."""
    replay: Replay = field(default_factory=for_each_step)
    """The memory of all steps; with samples_per_insert = batch_size there is a gradient step for every step."""
    network: ActorCriticNet = field(default_factory=ActorCriticNet)
    """Architecture of the default actor and of the critics."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        check_ranges(self, num_steps=(1, inf), batch_size=(1, inf), n_step=(1, inf))
        check_ranges(self, gamma=(0, 1), tau=(1e-9, 1))
        check_positive(self, "learning_rate", "critic_learning_rate")
        check_schedules(self)


Config = PPOSAC
PLAIN_POLICY = PlainActor


def make_policy(spec: Spec, cfg: PPOSAC, seed: int) -> nn.Module:
    """The actor, its weights drawn from `seed`."""
    return make_stochastic(spec, cfg.network, seed)


def train(cfg: PPOSAC, env: VecEnv, run: Run) -> nn.Module:
    """Trains an actor, and explorers beside it, until the run ends; returns the actor."""
    spec, own = env.spec, cfg.explorers
    actor = run.learner(run.policy(spec), optim.Adam, lr=cfg.learning_rate)
    critics = make_critics(spec, cfg.network, run.seed, squash=True)
    actor.add("critics", critics, optim.Adam, lr=cfg.critic_learning_rate)
    add_target(actor, "target", of="critics")
    temperature = make_temperature(spec, 1.0, cfg.target_entropy)
    actor.add("temperature", temperature, optim.Adam, lr=cfg.learning_rate)
    policy = policies.make_policy(spec, own.network, run.seed + SEED_STEP)
    adam = partial(optim.Adam, lr=own.learning_rate, eps=1e-5)
    explorer = run.learner(policy, adam, max_grad_norm=own.max_grad_norm)
    learners = {"actor": actor, "explorer": explorer}
    stream = run.explored(env, learners, cfg)
    for batch in run.loop(stream, learners):
        if stream.agent == "explorer":
            learn_on_policy(explorer, batch, cfg, run)
        else:
            learn_off_policy(actor, batch, cfg, run)
            stream.prioritize(batch)
        stream.publish()
    return actor.policy


def learn_on_policy(learner: Learner, steps: Steps, cfg: PPOSAC, run: Run) -> None:
    """Several epochs over a rollout of the explorers (Schulman et al. 2017)."""
    own = cfg.explorers
    advantage, target = gae(steps, gamma=cfg.gamma, gae_lambda=own.gae_lambda)
    for _ in range(own.update_epochs):
        for part in minibatches(steps, advantage, target, own.num_minibatches, run.rng):
            learner.step(explorer_loss, part, own)


def learn_off_policy(own: Learner, batch: Transitions, cfg: PPOSAC, run: Run) -> None:
    """A gradient step each of critics, actor and temperature (Haarnoja et al. 2018)."""
    now = apply_schedules(cfg, run.progress, own)
    own.networks["critics"].learning_rate = now.critic_learning_rate
    own.networks["temperature"].learning_rate = now.learning_rate
    draw = partial(action_noise, own.module("critics").spec, cfg.batch_size, run.rng)
    value = soft_next_value(own, batch, draw())
    learned = q_target(batch.reward, batch.discount, value)
    own.update(critics_loss, batch.with_target(learned), cfg, of="critics")
    stats = own.update(soft_actor_loss, (batch, draw()), cfg, of="policy")
    own.update(temperature_loss, stats.entropy, cfg, of="temperature")
    move_target(own, "target", of="critics", tau=cfg.tau)


class Means(NamedTuple):
    """Statistics of a minibatch of the explorers."""

    policy: Tensor
    value: Tensor
    entropy: Tensor


@prepared(with_normalized_advantage)
def explorer_loss(out: Output, batch: Steps, cfg: Explorers) -> tuple[Tensor, Means]:
    """Schulman et al. 2017, eq. 7 and 9, with the values' targets as they are."""
    advantage, target = targets_of(batch)
    distribution = masked(out.distribution, batch.action_mask)
    log_prob = distribution.log_prob(batch.action)
    clipped = ppo_policy_loss(log_prob, batch.log_prob, advantage, cfg.clip_coef)
    policy = masked_mean(clipped, batch.valid)
    value = masked_mean(value_loss(out.value, target), batch.valid)
    entropy = masked_mean(distribution.entropy(), batch.valid)
    loss = policy - cfg.ent_coef * entropy + cfg.vf_coef * value
    return loss, Means(policy, value, entropy)
