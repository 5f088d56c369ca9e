"""A2C as PAAC does it: many rows, one policy, one synchronous update (Clemente et al. 2017, arXiv 1705.04862)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn, optim

from shoal.envs.vec_env import VecEnv
from shoal.learn.advantage_loss import AdvantageStatistics, advantage_loss
from shoal.learn.losses import fused, with_normalized_advantage
from shoal.math.rates import Schedule, apply_schedules, check_schedules
from shoal.math.returns import n_step
from shoal.nets.policy import Network, Output
from shoal.run.run import Learners, Run
from shoal.types import Steps, check_finite, check_least, check_positive, check_ranges


@dataclass(frozen=True, slots=True)
class A2C:
    """Settings of A2C; the preset `paac` holds the paper's values."""

    num_steps: int = 5
    """Steps of a rollout and of the n-step return (t_max in the paper); more give less bias and more variance."""
    learning_rate: float = 7e-4
    """RMSProp's step size; larger learns faster but less stably."""
    learning_rate_schedule: Schedule = "linear"
    """Schedule of the learning rate: constant, linear or cosine (to 0 at total_timesteps), or a function."""
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
    ent_coef_schedule: Schedule = "constant"
    """Schedule of the entropy bonus coefficient: as of the learning rate."""
    vf_coef: float = 0.5
    """Value loss coefficient; larger fits values faster."""
    max_grad_norm: float = 0.5
    """Gradients are clipped to this global norm; larger allows larger and less stable steps."""
    network: Network = field(default_factory=Network)
    """Architecture of the default policy."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        check_least(self, num_steps=1, vf_coef=0)
        check_ranges(self, gamma=(0, 1), alpha=(0, 1))
        check_positive(self, "learning_rate", "rmsprop_eps", "max_grad_norm")
        check_finite(self, "learning_rate", "rmsprop_eps", "ent_coef", "vf_coef")
        check_schedules(self)


Config = A2C
DEFAULTS = {"num_envs": 32, "max_staleness": 0}


def train(cfg: A2C, env: VecEnv, run: Run) -> nn.Module:
    """Trains a policy until the run ends, or one for each agent; returns the first."""
    agents = run.members(cfg)
    learners: Learners = {}
    for number, (name, cfg) in enumerate(agents.items()):
        policy = run.policy(env.spec, member=number)
        rmsprop = partial(optim.RMSprop, alpha=cfg.alpha, eps=cfg.rmsprop_eps)
        learners[name] = run.learner(policy, rmsprop, max_grad_norm=cfg.max_grad_norm)
    stream = run.rollouts(env, learners, num_steps=cfg.num_steps)
    for rollout in run.loop(stream, learners):
        cfg, learner = agents[stream.agent], learners[stream.agent]
        target = n_step(rollout, gamma=cfg.gamma, n=cfg.num_steps)
        learned = rollout.with_targets(target - rollout.value, target)
        learner.step(a2c_loss, learned, apply_schedules(cfg, run.progress, learner))
        stream.publish()
    return next(iter(learners.values())).policy


@fused(AdvantageStatistics, prepare=with_normalized_advantage)
def a2c_loss(
    output: Output, batch: Steps, cfg: A2C
) -> tuple[Tensor, AdvantageStatistics]:
    """-log pi(a|s) A - ent_coef H + vf_coef 0.5 (v - target)^2 (Mnih et al. 2016, arXiv 1602.01783, section 4)."""
    return advantage_loss(output, batch, cfg)
