"""A2C as PAAC does it: many rows, one policy, one synchronous update (Clemente et al. 2017, arXiv 1705.04862)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.optim import RMSprop

from shoal.envs.vec_env import VecEnv
from shoal.learn.losses import fused, targets_of, with_normalized_advantage
from shoal.math.losses import masked_mean, policy_gradient_loss, value_loss
from shoal.math.returns import n_step
from shoal.nets.distributions import masked
from shoal.nets.policy import Network, Output
from shoal.run.run import Run
from shoal.types import Steps, check_finite, check_positive, check_ranges


@dataclass(frozen=True, slots=True)
class A2C:
    """Settings of A2C; the preset `paac` holds the paper's values."""

    num_steps: int = 5
    """Steps of a rollout and of the n-step return (t_max in the paper); more give less bias and more variance."""
    learning_rate: float = 7e-4
    """RMSProp's step size; larger learns faster but less stably."""
    anneal: Literal["none", "linear"] = "linear"
    """Learning rate schedule: constant, or linear decay to 0 at total_timesteps."""
    alpha: float = 0.99
    """RMSProp's decay of the squared gradient average; closer to 1 averages longer."""
    rmsprop_eps: float = 1e-5
    """RMSProp's epsilon; larger shrinks the steps of parameters with small gradients."""
    gamma: float = 0.99
    """Discount factor; closer to 1 looks further ahead."""
    norm_adv: bool = False
    """Normalize the advantages of each update."""
    ent_coef: float = 0.01
    """Entropy bonus coefficient; larger explores longer."""
    vf_coef: float = 0.5
    """Value loss coefficient; larger fits values faster."""
    max_grad_norm: float = 0.5
    """Gradients are clipped to this global norm; larger allows larger and less stable steps."""
    network: Network = field(default_factory=Network)
    """Architecture of the default policy."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        check_ranges(self, num_steps=(1, inf), gamma=(0, 1), alpha=(0, 1))
        check_ranges(self, vf_coef=(0, inf))
        check_positive(self, "learning_rate", "rmsprop_eps", "max_grad_norm")
        check_finite(self, "learning_rate", "rmsprop_eps", "ent_coef", "vf_coef")


Config = A2C
DEFAULTS = {"num_envs": 32}


def train(cfg: A2C, env: VecEnv, run: Run) -> nn.Module:
    """Trains a policy until the run ends; returns it."""
    learner = run.learner(
        run.policy(env.spec),
        RMSprop,
        lr=cfg.learning_rate,
        alpha=cfg.alpha,
        eps=cfg.rmsprop_eps,
        max_grad_norm=cfg.max_grad_norm,
    )
    stream = run.rollouts(env, learner, num_steps=cfg.num_steps)
    for rollout in run.loop(stream, learner):
        if cfg.anneal == "linear":
            learner.learning_rate = cfg.learning_rate * (1 - run.progress)
        target = n_step(rollout, gamma=cfg.gamma, n=cfg.num_steps)
        learned = replace(rollout, advantage=target - rollout.value, target=target)
        learner.step(a2c_loss, learned, cfg)
        stream.publish()
    return learner.policy


class A2CStatistics(NamedTuple):
    """Means over a rollout."""

    policy: Tensor
    value: Tensor
    entropy: Tensor


@fused(A2CStatistics, prepare=with_normalized_advantage)
def a2c_loss(output: Output, batch: Steps, cfg: A2C) -> tuple[Tensor, A2CStatistics]:
    """-log pi(a|s) A - ent_coef H + vf_coef 0.5 (v - target)^2 (Mnih et al. 2016, arXiv 1602.01783, section 4)."""
    advantage, target = targets_of(batch)
    chosen = masked(output.distribution, batch.action_mask)
    gradient = policy_gradient_loss(chosen.log_prob(batch.action), advantage)
    policy = masked_mean(gradient, batch.valid)
    value = masked_mean(value_loss(output.value, target), batch.valid)
    entropy = masked_mean(chosen.entropy(), batch.valid)
    loss = policy - cfg.ent_coef * entropy + cfg.vf_coef * value
    return loss, A2CStatistics(policy, value, entropy)
