"""R2D2: recurrent Q-learning on sequences of a replay memory (Kapturowski et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import NamedTuple

from torch import Tensor, nn, optim

from shoal.envs.vec_env import VecEnv
from shoal.learn.sequences import burned_in
from shoal.learn.targets import add_target, move_target
from shoal.math.losses import masked_mean
from shoal.math.q_learning import best_action, huber, mixed_error, sequence_target
from shoal.math.rates import Schedule, apply_schedules, check_schedules, epsilon_at
from shoal.memory.settings import Replay
from shoal.nets import q_network
from shoal.nets.network import QNet
from shoal.nets.policy import Output
from shoal.run.run import Learners, Run
from shoal.types import Sequences, Spec, check_finite, check_positive, check_ranges


def _with_memory() -> QNet:
    return QNet(hidden=(64,), recurrent="gru", recurrent_size=64)


def _memory() -> Replay:
    return Replay(samples_per_insert=16)


@dataclass(frozen=True, slots=True)
class R2D2:
    """Settings of R2D2."""

    num_steps: int = 8
    """Steps of each environment between two times of learning; more make larger batches of acting."""
    batch_size: int = 32
    """Sequences of each gradient step; more give less noisy ones."""
    sequence_length: int = 20
    """Steps of each sequence that are learned from; more remember further back, and cost more."""
    burn_in: int = 10
    """Steps before them that only warm the state up; more make up for older states in the memory, and cost more."""
    n_step: int = 3
    """Rewards before the target network's value, within a sequence; more learn faster, with more variance."""
    learning_rate: float = 1e-3
    """Adam's step size; larger learns faster but less stably."""
    learning_rate_schedule: Schedule = "constant"
    """Schedule of the learning rate: constant, linear or cosine (to 0 at total_timesteps), or a function."""
    adam_eps: float = 1e-5
    """Adam's epsilon; larger shrinks the steps of parameters with small gradients."""
    gamma: float = 0.997
    """Discount factor; closer to 1 looks further ahead."""
    target_update_interval: int = 200
    """Gradient steps between two copies to the target network; more are more stable and slower."""
    epsilon_start: float = 1.0
    """Share of random actions at first."""
    epsilon_end: float = 0.05
    """Share of random actions at last."""
    exploration_fraction: float = 0.2
    """Share of the run in which it falls from the first to the last, linearly; more explore longer."""
    rescale_values: bool = False
    """Learn about the square root of Q in its place (Pohlen et al. 2018): for returns of very different sizes."""
    max_grad_norm: float = 40.0
    """Gradients are clipped to this global norm; larger allows larger and less stable steps."""
    replay: Replay = field(default_factory=_memory)
    """The replay memory, with the recurrent state before each step; replay.alpha > 0 prioritizes."""
    network: QNet = field(default_factory=_with_memory)
    """Architecture of the default Q-network; its memory is network.recurrent, gru or lstm."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        counts = ("num_steps", "batch_size", "sequence_length", "n_step")
        check_ranges(self, **dict.fromkeys(counts, (1, inf)), burn_in=(0, inf))
        check_ranges(self, target_update_interval=(1, inf))
        check_ranges(self, gamma=(0, 1), exploration_fraction=(0, 1))
        check_ranges(self, epsilon_start=(0, 1), epsilon_end=(0, 1))
        check_positive(self, "learning_rate", "adam_eps", "max_grad_norm")
        check_finite(self, "learning_rate", "adam_eps", "max_grad_norm")
        check_schedules(self)
        q_network.check_memory(self.network, instead='algo="dqn"')


Config = R2D2
DEFAULTS = {"num_envs": 16}
PERTURBABLE = ("learning_rate", "gamma", "n_step", "epsilon_end")
PLAIN_POLICY = q_network.PlainQNetwork


def make_policy(spec: Spec, cfg: R2D2, seed: int) -> nn.Module:
    """The Q-network with a memory, its weights drawn from `seed`."""
    return q_network.make_q_network(spec, cfg.network, seed)


def train(cfg: R2D2, env: VecEnv, run: Run) -> nn.Module:
    """Trains a recurrent Q-network until the run ends, or one for each agent; returns the first."""
    agents = run.members(cfg)
    learners: Learners = {}
    for number, (name, cfg) in enumerate(agents.items()):
        policy = run.policy(env.spec, member=number)
        adam = partial(optim.Adam, lr=cfg.learning_rate, eps=cfg.adam_eps)
        learners[name] = run.learner(policy, adam, max_grad_norm=cfg.max_grad_norm)
        add_target(learners[name], "target")
    stream = run.replay(env, learners, agents, cfg.replay)
    for name, cfg in agents.items():
        stream.explore(cfg.epsilon_start, name)
    for batch in run.loop(stream, learners):
        cfg, learner = agents[stream.agent], learners[stream.agent]
        now = apply_schedules(cfg, run.progress, learner)
        learned = burned_in(learner, "target", batch, burn_in=cfg.burn_in)
        learner.step(r2d2_loss, learned, now)
        if learner.updates % cfg.target_update_interval == 0:
            move_target(learner, "target")
        stream.prioritize(batch)
        stream.explore(epsilon_at(run.progress, cfg))
        stream.publish()
    return next(iter(learners.values())).policy


class R2D2Statistics(NamedTuple):
    """Means over the steps that are learned from."""

    value: Tensor
    q: Tensor


def r2d2_loss(
    output: Output, batch: Sequences, cfg: R2D2
) -> tuple[Tensor, R2D2Statistics]:
    """The mean of Huber's loss of Q(s, a) - target over steps, with targets of n steps within sequences [L, B].

    It is double Q-learning: the network that learns chooses the next action, the target network values it.
    """
    if batch.next_value is None:
        raise ValueError("this loss needs batch.next_value; burned_in(...) gives it")
    values = q_network.action_values(output)
    best = best_action(values.detach(), batch.action_mask).unsqueeze(-1)
    after = batch.next_value.gather(-1, best).squeeze(-1)
    steps = batch.reward, batch.discount, batch.valid
    rescale = cfg.rescale_values
    target = sequence_target(*steps, after, n_step=cfg.n_step, rescale=rescale)
    chosen = q_network.values_of(output, batch.action)
    error = chosen - target
    batch.error.copy_(mixed_error(error.detach(), batch.valid))
    loss = masked_mean(batch.weight * huber(error), batch.valid)
    return loss, R2D2Statistics(loss, masked_mean(chosen, batch.valid))
