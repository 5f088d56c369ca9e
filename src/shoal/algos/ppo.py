"""PPO: proximal policy optimization with a clipped surrogate (Schulman et al. 2017, arXiv 1707.06347)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Adam

from shoal.envs.vec_env import VecEnv
from shoal.learn.current import with_proximal_policy
from shoal.learn.losses import fused, targets_of, with_normalized_advantage
from shoal.learn.minibatches import check_minibatches, minibatches
from shoal.math.losses import masked_mean, ppo_policy_loss, ratio_statistics, value_loss
from shoal.math.rates import Schedule, adapted_rate, apply_schedules, check_schedules
from shoal.math.returns import gae
from shoal.nets.distributions import masked
from shoal.nets.policy import Network, Output
from shoal.run.run import Learners, Run
from shoal.types import Steps, check_finite, check_given, check_positive, check_ranges


@dataclass(frozen=True, slots=True)
class PPO:
    """Settings of PPO."""

    num_steps: int = 128
    """Steps of each environment per rollout; more see further ahead and update less often."""
    num_minibatches: int = 8
    """Minibatches per epoch, one gradient step each; more give smaller minibatches and noisier steps."""
    update_epochs: int = 4
    """Epochs per rollout; more reuse the data better but move the policy further from it."""
    learning_rate: float = 3e-4
    """Adam's step size; larger learns faster but less stably."""
    learning_rate_schedule: Schedule = "constant"
    """Schedule of the learning rate: constant, linear or cosine (to 0 at total_timesteps), kl, or a function."""
    adam_eps: float = 1e-5
    """Adam's epsilon; larger shrinks the steps of parameters with small gradients."""
    gamma: float = 0.99
    """Discount factor; closer to 1 looks further ahead."""
    gae_lambda: float = 0.95
    """GAE's lambda; closer to 1 gives less bias and more variance in the advantages."""
    clip_coef: float = 0.2
    """Clip range of the probability ratio; larger allows larger policy updates."""
    clip_coef_schedule: Schedule = "constant"
    """Schedule of the clip range: as of the learning rate, without kl."""
    clip_vloss: bool = False
    """Also clip the value loss around the old value predictions."""
    norm_adv: bool = True
    """Normalize the advantages of each minibatch."""
    ent_coef: float = 0.0
    """Entropy bonus coefficient; larger explores longer."""
    ent_coef_schedule: Schedule = "constant"
    """Schedule of the entropy bonus coefficient: as of the clip range."""
    vf_coef: float = 0.5
    """Value loss coefficient; larger fits values faster, at the policy's cost where they share layers."""
    max_grad_norm: float = 0.5
    """Gradients are clipped to this global norm; larger allows larger and less stable steps."""
    target_kl: float | None = None
    """Stop an update's epochs early once the KL divergence exceeds this; with learning_rate_schedule="kl", the aim."""
    decoupled_clip: float | None = None
    """Clip around the policy at an update's start, not what acted; steps weigh as their ratio, at most this."""
    network: Network = field(default_factory=Network)
    """Architecture of the default policy."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        check_ranges(self, num_steps=(1, inf), num_minibatches=(1, inf))
        check_positive(self, "learning_rate", "adam_eps", "clip_coef", "max_grad_norm")
        check_ranges(self, update_epochs=(1, inf), vf_coef=(0, inf))
        check_ranges(self, gamma=(0, 1), gae_lambda=(0, 1))
        check_finite(self, "learning_rate", "adam_eps", "ent_coef", "vf_coef")
        check_schedules(self, learning_rate_schedule="kl")
        check_given(self, "target_kl", "decoupled_clip")


Config = PPO
PERTURBABLE = ("learning_rate", "gamma", "gae_lambda", "clip_coef", "ent_coef")


def train(cfg: PPO, env: VecEnv, run: Run) -> nn.Module:
    """Trains a policy until the run ends, or one for each agent; returns the first."""
    agents = run.members(cfg)
    learners: Learners = {}
    for number, (name, cfg) in enumerate(agents.items()):
        policy = run.policy(env.spec, member=number)
        adam = partial(Adam, lr=cfg.learning_rate, eps=cfg.adam_eps)
        learners[name] = run.learner(policy, adam, max_grad_norm=cfg.max_grad_norm)
    stream = run.rollouts(env, learners, num_steps=cfg.num_steps)
    for name, cfg in agents.items():
        check_minibatches(stream.shape, cfg, whole_rows=learners[name].recurrent)
    for rollout in run.loop(stream, learners):
        cfg, learner = agents[stream.agent], learners[stream.agent]
        led_by_kl = cfg.learning_rate_schedule == "kl"
        now = apply_schedules(cfg, run.progress, learner)
        steps = with_proximal_policy(learner, rollout, most=cfg.decoupled_clip)
        advantage, target = gae(steps, gamma=cfg.gamma, gae_lambda=cfg.gae_lambda)
        kl = 0.0
        for _ in range(cfg.update_epochs):
            parts = minibatches(steps, advantage, target, cfg.num_minibatches, run.rng)
            kls = [learner.step(ppo_loss, batch, now).approx_kl for batch in parts]
            kl = float(sum(kls)) / len(kls)
            if cfg.target_kl is not None and not led_by_kl and kl > cfg.target_kl:
                break
        if led_by_kl:
            rate = learner.learning_rate
            learner.learning_rate = adapted_rate(rate, kl, cfg.target_kl or inf)
        stream.publish()
    return next(iter(learners.values())).policy


class PPOStatistics(NamedTuple):
    """Means over a minibatch."""

    policy: Tensor
    value: Tensor
    entropy: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor


@fused(PPOStatistics, prepare=with_normalized_advantage)
def ppo_loss(output: Output, batch: Steps, cfg: PPO) -> tuple[Tensor, PPOStatistics]:
    """-min(r A, clip(r, 1 - c, 1 + c) A) - ent_coef H + vf_coef 0.5 (v - target)^2 with r = pi(a|s) / pi_old(a|s).

    Schulman et al. 2017, eq. 7 and 9. `batch` holds steps [T, B] with `advantage` and `target`.
    """
    advantage, target = targets_of(batch)
    distribution = masked(output.distribution, batch.action_mask)
    log_prob = distribution.log_prob(batch.action)
    surrogate = ppo_policy_loss(
        log_prob, batch.log_prob, advantage, cfg.clip_coef, batch.weight
    )
    policy = masked_mean(surrogate, batch.valid)
    old_value = batch.value if cfg.clip_vloss else None
    errors = value_loss(output.value, target, old_value, cfg.clip_coef)
    value = masked_mean(errors, batch.valid)
    entropy = masked_mean(distribution.entropy(), batch.valid)
    kl, outside = ratio_statistics(log_prob, batch.log_prob, cfg.clip_coef, batch.valid)
    loss = policy - cfg.ent_coef * entropy + cfg.vf_coef * value
    return loss, PPOStatistics(policy, value, entropy, kl, outside)
