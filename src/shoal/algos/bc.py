"""BC: behavior cloning, a policy that does what a data set shows (Pomerleau 1991); a start for other algorithms."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Adam

from shoal.envs.vec_env import VecEnv
from shoal.math.rates import Schedule, apply_schedules, check_schedules
from shoal.nets import policy
from shoal.nets.actors import make_stochastic
from shoal.nets.network import ActorCriticNet, Network
from shoal.nets.policy import Output
from shoal.run.run import Run
from shoal.types import Spec, Transitions, check_finite, check_positive, check_ranges


@dataclass(frozen=True, slots=True)
class BC:
    """Settings of behavior cloning; the run's `data` is what is cloned, in `offline_updates` gradient steps."""

    batch_size: int = 256
    """Steps of the data set in each gradient step; more give less noisy ones."""
    learning_rate: float = 1e-3
    """Adam's step size; larger learns faster but less stably."""
    learning_rate_schedule: Schedule = "linear"
    """Schedule of the learning rate: constant, linear or cosine (to 0 at the last update), or a function."""
    max_grad_norm: float = 10.0
    """Gradients are clipped to this global norm; larger allows larger and less stable steps."""
    actor: bool = False
    """Clone into an actor beside which critics learn, as SAC begins with, instead of a policy with a value."""
    network: Network = field(default_factory=Network)
    """Architecture of the default policy."""
    actor_network: ActorCriticNet = field(default_factory=ActorCriticNet)
    """Architecture of the default actor, where `actor` is set."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        check_ranges(self, batch_size=(1, inf))
        check_positive(self, "learning_rate", "max_grad_norm")
        check_finite(self, "learning_rate")
        check_schedules(self)


Config = BC
DEFAULTS = {"num_envs": 1, "total_timesteps": 0, "offline_updates": 10_000}


def make_policy(spec: Spec, cfg: BC, seed: int) -> nn.Module:
    """The policy or the actor, its weights drawn from `seed`."""
    if cfg.actor:
        return make_stochastic(spec, cfg.actor_network, seed)
    return policy.make_policy(spec, cfg.network, seed)


def train(cfg: BC, env: VecEnv, run: Run) -> nn.Module:
    """Clones until the run has made its updates; returns the policy."""
    learner = run.learner(
        run.policy(env.spec),
        Adam,
        lr=cfg.learning_rate,
        max_grad_norm=cfg.max_grad_norm,
    )
    stream = run.data(env, learner, batch_size=cfg.batch_size)
    for batch in run.loop(stream, learner):
        now = apply_schedules(cfg, run.progress, learner)
        learner.step(bc_loss, batch, now)
        stream.publish()
    return learner.policy


class BCStatistics(NamedTuple):
    """Means over a batch; both in nats."""

    policy: Tensor
    entropy: Tensor


def bc_loss(output: Output, batch: Transitions, cfg: BC) -> tuple[Tensor, BCStatistics]:
    """The mean of -log pi(a|s) over the data set's steps (Pomerleau 1991)."""
    loss = -output.distribution.log_prob(batch.action).mean()
    return loss, BCStatistics(loss, output.distribution.entropy().mean())
