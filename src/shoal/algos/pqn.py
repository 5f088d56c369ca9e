"""PQN: Q-learning on many rows at once, without replay or target network (Gallici et al. 2024, arXiv 2407.04811)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn, optim

from shoal.envs.vec_env import VecEnv
from shoal.learn.minibatches import check_minibatches, minibatches
from shoal.math.losses import masked_mean, value_loss
from shoal.math.rates import Schedule, apply_schedules, check_schedules, epsilon_at
from shoal.math.returns import q_lambda
from shoal.nets import q_network
from shoal.nets.network import QNet
from shoal.nets.policy import Output
from shoal.run.run import Learners, Run
from shoal.types import (
    ConfigError,
    Spec,
    Steps,
    check_finite,
    check_least,
    check_positive,
    check_ranges,
)


def _normalized() -> QNet:
    return QNet(layer_norm=True)


@dataclass(frozen=True, slots=True)
class PQN:
    """Settings of PQN."""

    num_steps: int = 32
    """Steps of each environment per rollout, which the returns look ahead at most; more update less often."""
    num_minibatches: int = 8
    """Minibatches per epoch, one gradient step each; more give smaller minibatches and noisier steps."""
    update_epochs: int = 2
    """Epochs per rollout; more learn more from each step, by returns that grow older meanwhile."""
    learning_rate: float = 5e-4
    """RAdam's step size; larger learns faster but less stably."""
    learning_rate_schedule: Schedule = "linear"
    """Schedule of the learning rate: constant, linear or cosine (to 0 at total_timesteps), or a function."""
    gamma: float = 0.99
    """Discount factor; closer to 1 looks further ahead."""
    q_lambda: float = 0.65
    """Lambda of the returns; closer to 1 trusts rewards more and the network less, with more variance."""
    epsilon_start: float = 1.0
    """Share of random actions at first."""
    epsilon_end: float = 0.05
    """Share of random actions at last."""
    exploration_fraction: float = 0.2
    """Share of the run in which it falls from the first to the last, linearly; more explore longer."""
    max_grad_norm: float = 10.0
    """Gradients are clipped to this global norm; larger allows larger and less stable steps."""
    network: QNet = field(default_factory=_normalized)
    """Architecture of the default Q-network; its layer_norm stands in for a target network."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        check_least(self, num_steps=1, num_minibatches=1, update_epochs=1)
        check_ranges(self, gamma=(0, 1), q_lambda=(0, 1), exploration_fraction=(0, 1))
        check_ranges(self, epsilon_start=(0, 1), epsilon_end=(0, 1))
        check_positive(self, "learning_rate", "max_grad_norm")
        check_finite(self, "learning_rate")
        check_schedules(self)
        if self.network.noisy or self.network.quantiles:
            raise ConfigError(
                "PQN explores by epsilon and learns mean values: network.noisy and network.quantiles would do nothing; "
                'leave them out, or choose algo="dqn"'
            )


Config = PQN
DEFAULTS = {"num_envs": 32, "max_staleness": 0}
PERTURBABLE = ("learning_rate", "gamma", "q_lambda", "update_epochs", "epsilon_end")
PLAIN_POLICY = q_network.PlainQNetwork


def make_policy(spec: Spec, cfg: PQN, seed: int) -> nn.Module:
    """The Q-network, its weights drawn from `seed`."""
    return q_network.make_q_network(spec, cfg.network, seed)


def train(cfg: PQN, env: VecEnv, run: Run) -> nn.Module:
    """Trains a Q-network until the run ends, or one for each agent; returns the first."""
    agents = run.members(cfg)
    learners: Learners = {}
    for number, (name, cfg) in enumerate(agents.items()):
        policy = run.policy(env.spec, member=number)
        radam = partial(optim.RAdam, lr=cfg.learning_rate, foreach=True)
        learners[name] = run.learner(policy, radam, max_grad_norm=cfg.max_grad_norm)
    stream = run.rollouts(env, learners, num_steps=cfg.num_steps)
    for name, cfg in agents.items():
        check_minibatches(stream.shape, cfg, whole_rows=learners[name].recurrent)
        stream.explore(cfg.epsilon_start, name)
    for rollout in run.loop(stream, learners):
        cfg, learner = agents[stream.agent], learners[stream.agent]
        now = apply_schedules(cfg, run.progress, learner)
        target = q_lambda(rollout, gamma=cfg.gamma, q_lambda=cfg.q_lambda)
        for _ in range(cfg.update_epochs):
            parts = minibatches(rollout, None, target, cfg.num_minibatches, run.rng)
            for batch in parts:
                learner.step(pqn_loss, batch, now)
        stream.explore(epsilon_at(run.progress, cfg))
        stream.publish()
    return next(iter(learners.values())).policy


class PQNStatistics(NamedTuple):
    """Means over a minibatch."""

    value: Tensor
    q: Tensor


def pqn_loss(output: Output, batch: Steps, cfg: PQN) -> tuple[Tensor, PQNStatistics]:
    """The mean of 0.5 (Q(s, a) - target)^2 (Gallici et al. 2024, eq. 9). `batch` holds steps [T, B] with `target`."""
    if batch.target is None:
        raise ValueError("this loss needs batch.target; minibatches(...) gives it")
    chosen = q_network.values_of(output, batch.action)
    value = masked_mean(value_loss(chosen, batch.target), batch.valid)
    return value, PQNStatistics(value, masked_mean(chosen, batch.valid))
