"""PPO under a limit on costs, by a Lagrange multiplier (Ray, Achiam & Amodei 2019, "Benchmarking Safe Exploration")."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Adam

from shoal.envs.vec_env import VecEnv
from shoal.learn.constraint import (
    CRITIC,
    Multiplier,
    add_cost_critic,
    constrained_advantage,
    cost_gae,
    cost_value_loss,
)
from shoal.learn.losses import targets_of
from shoal.learn.minibatches import check_minibatches, minibatches
from shoal.learn.publishing import observe
from shoal.math.losses import masked_mean, ppo_policy_loss, ratio_statistics, value_loss
from shoal.math.returns import gae
from shoal.nets.distributions import masked
from shoal.nets.policy import Network, Output
from shoal.run.constrained import rollouts_alone
from shoal.run.run import Run
from shoal.types import Steps, check_finite, check_positive, check_ranges


@dataclass(frozen=True, slots=True)
class PPOLagrangian:
    """Settings of PPO under a limit on costs."""

    cost_limit: float = 25.0
    """What an episode may cost on average; less is safer and earns less."""
    multiplier_init: float = 0.0
    """Multiplier before any episode ended: what a cost of 1 weighs against rewards; larger begins more carefully."""
    multiplier_learning_rate: float = 0.05
    """How fast the multiplier follows costs above or below the limit; larger obeys sooner and swings more."""
    multiplier_gain: float = 0.2
    """Added to the multiplier for each cost above the limit, at once; larger damps its swings."""
    cost_learning_rate: float = 1e-3
    """Adam's step size for the critic of costs; larger learns faster but less stably."""
    cost_gamma: float = 0.99
    """Discount factor of costs; closer to 1 sees harm coming earlier."""
    cost_gae_lambda: float = 0.95
    """GAE's lambda of costs; closer to 1 gives less bias and more variance."""
    num_steps: int = 256
    """Steps of each environment per rollout; more let more episodes say what the policy costs."""
    num_minibatches: int = 8
    """Minibatches per epoch, one gradient step each; more give smaller minibatches and noisier steps."""
    update_epochs: int = 4
    """Epochs per rollout; more reuse the data better but move the policy further from it."""
    learning_rate: float = 3e-4
    """Adam's step size; larger learns faster but less stably."""
    gamma: float = 0.99
    """Discount factor of rewards; closer to 1 looks further ahead."""
    gae_lambda: float = 0.95
    """GAE's lambda of rewards; closer to 1 gives less bias and more variance."""
    clip_coef: float = 0.2
    """Clip range of the probability ratio; larger allows larger policy updates."""
    ent_coef: float = 0.0
    """Entropy bonus coefficient; larger explores longer."""
    vf_coef: float = 0.5
    """Value loss coefficient; larger fits values faster, at the policy's cost where they share layers."""
    max_grad_norm: float = 0.5
    """Gradients are clipped to this global norm; larger allows larger and less stable steps."""
    network: Network = field(default_factory=Network)
    """Architecture of the default policy; the critic of costs has its hidden layers too, and no memory."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        counts = ("num_steps", "num_minibatches", "update_epochs")
        weights = ("cost_limit", "multiplier_init", "multiplier_gain", "vf_coef")
        shares = ("gamma", "gae_lambda", "cost_gamma", "cost_gae_lambda")
        check_ranges(self, **dict.fromkeys(counts, (1, inf)))
        check_ranges(self, **dict.fromkeys(weights, (0, inf)))
        check_ranges(self, **dict.fromkeys(shares, (0, 1)))
        rates = ("learning_rate", "cost_learning_rate", "multiplier_learning_rate")
        check_positive(self, *rates, "clip_coef", "max_grad_norm")
        check_finite(self, *rates, *weights, "ent_coef")


Config = PPOLagrangian
DEFAULTS = {"num_envs": 32}


def train(cfg: PPOLagrangian, env: VecEnv, run: Run) -> nn.Module:
    """Trains a policy until the run ends, and returns it."""
    settings = {"lr": cfg.learning_rate, "max_grad_norm": cfg.max_grad_norm}
    learner = run.learner(run.policy(env.spec), Adam, eps=1e-5, **settings)
    add_cost_critic(learner, env.spec, cfg, run.seed)
    multiplier = Multiplier(cfg)
    stream = rollouts_alone(run, env, learner, cfg.num_steps)
    check_minibatches(stream.shape, cfg, whole_rows=learner.recurrent)
    for rollout in run.loop(stream, learner, state={"multiplier": multiplier}):
        weight = multiplier.update(stream.episodes.info["cost"])
        run.log({"constraint/multiplier": weight})
        gain, target = gae(rollout, gamma=cfg.gamma, gae_lambda=cfg.gae_lambda)
        harm, cost_target = cost_gae(learner, rollout, stream.latest, cfg)
        worth = constrained_advantage(gain, harm, rollout.valid, weight)
        cut = cfg.num_minibatches, run.rng
        for _ in range(cfg.update_epochs):
            for batch in minibatches(rollout, worth, target, *cut):
                learner.step(constrained_loss, batch, cfg)
            for batch in minibatches(rollout, None, cost_target, *cut):
                learner.update(cost_value_loss, batch, cfg, of=CRITIC)
        observe(learner.module(CRITIC), rollout)
        stream.publish()
    return learner.policy


class ConstrainedStatistics(NamedTuple):
    """Means over a minibatch."""

    policy: Tensor
    value: Tensor
    entropy: Tensor
    approx_kl: Tensor


def constrained_loss(
    output: Output, batch: Steps, cfg: PPOLagrangian
) -> tuple[Tensor, ConstrainedStatistics]:
    """The clipped surrogate of (A - lambda A_C) / (1 + lambda), with the entropy and the value's error."""
    worth, target = targets_of(batch)
    chosen = masked(output.distribution, batch.action_mask)
    now, before = chosen.log_prob(batch.action), batch.log_prob
    parts = (
        ppo_policy_loss(now, before, worth, cfg.clip_coef),
        value_loss(output.value, target),
        chosen.entropy(),
    )
    policy, value, entropy = (masked_mean(part, batch.valid) for part in parts)
    kl, _ = ratio_statistics(now, before, cfg.clip_coef, batch.valid)
    total = policy + cfg.vf_coef * value - cfg.ent_coef * entropy
    return total, ConstrainedStatistics(policy, value, entropy, kl)
