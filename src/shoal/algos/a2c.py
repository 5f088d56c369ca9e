"""A2C as PAAC does it: many rows, one policy, one synchronous update (Clemente et al. 2017, arXiv 1705.04862)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor
from torch.optim import RMSprop

from shoal.learn.losses import fused, prepared
from shoal.learn.minibatches import check_minibatches, with_normalized_advantage
from shoal.math.losses import masked_mean, policy_gradient_loss, value_loss
from shoal.math.returns import n_step
from shoal.nets.distributions import masked
from shoal.nets.policy import Network, Output
from shoal.types import Steps, check_ranges

if TYPE_CHECKING:
    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.run.run import Run


@dataclass(frozen=True, slots=True)
class A2C:
    """Settings of A2C; the preset `paac` holds the paper's values."""

    num_steps: int = 5
    """Steps of a rollout and of the n-step return (the paper's t_max); more give less bias and more variance."""
    learning_rate: float = 7e-4
    """RMSProp's step size; larger learns faster but less stably."""
    anneal: Literal["none", "linear"] = "linear"
    """Learning rate: constant, or linearly to 0 at total_timesteps."""
    alpha: float = 0.99
    """RMSProp's decay of the squared gradient; nearer to 1 averages longer."""
    rmsprop_eps: float = 1e-5
    """RMSProp's epsilon; larger damps the steps of parameters with small gradients."""
    gamma: float = 0.99
    """Discount; nearer to 1 looks further ahead."""
    norm_adv: bool = False
    """Normalize the advantages of each update."""
    ent_coef: float = 0.01
    """Weight of the entropy; larger explores longer."""
    vf_coef: float = 0.5
    """Weight of the value loss; larger fits values faster."""
    max_grad_norm: float = 0.5
    """The gradient's norm is cut to this; larger allows larger and less stable steps."""
    network: Network = field(default_factory=Network)
    """The default policy's shape."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        check_ranges(self, num_steps=(1, inf), gamma=(0, 1), alpha=(0, 1))
        positive = ("learning_rate", "rmsprop_eps", "max_grad_norm")
        check_ranges(self, **dict.fromkeys(positive, (1e-12, inf)), vf_coef=(0, inf))


Config = A2C
DEFAULTS = {"num_envs": 32}


def train(cfg: A2C, env: VecEnv, run: Run) -> nn.Module:
    """Trains a policy until the run ends; returns it."""
    policy = run.policy(env.spec)
    adapt = {"lr": cfg.learning_rate, "alpha": cfg.alpha, "eps": cfg.rmsprop_eps}
    learner = run.learner(policy, RMSprop, max_grad_norm=cfg.max_grad_norm, **adapt)
    stream = run.rollouts(env, learner, num_steps=cfg.num_steps)
    check_minibatches(1, stream.shape, least=1 + cfg.norm_adv, whole_rows=False)
    for rollout in run.loop(stream, learner):
        if cfg.anneal == "linear":
            learner.learning_rate = cfg.learning_rate * (1 - run.progress)
        target = n_step(rollout, gamma=cfg.gamma, n=cfg.num_steps)
        advantage = target - rollout.value
        batch = replace(rollout, advantage=advantage, target=target)
        learner.step(a2c_loss, batch, cfg)
        stream.publish()
    return learner.policy


class A2CStatistics(NamedTuple):
    """Means over a rollout."""

    policy: Tensor
    value: Tensor
    entropy: Tensor


@fused(A2CStatistics)
@prepared(with_normalized_advantage)
def a2c_loss(output: Output, batch: Steps, cfg: A2C) -> tuple[Tensor, A2CStatistics]:
    """-log pi(a|s) A - ent_coef H + vf_coef 0.5 (v - target)^2 (Mnih et al. 2016, arXiv 1602.01783, section 4)."""
    assert batch.advantage is not None
    assert batch.target is not None
    distribution = masked(output.distribution, batch.action_mask)
    log_prob = distribution.log_prob(batch.action)
    gradient = policy_gradient_loss(log_prob, batch.advantage)
    policy = masked_mean(gradient, batch.valid)
    value = masked_mean(value_loss(output.value, batch.target), batch.valid)
    entropy = masked_mean(distribution.entropy(), batch.valid)
    loss = policy - cfg.ent_coef * entropy + cfg.vf_coef * value
    return loss, A2CStatistics(policy, value, entropy)
