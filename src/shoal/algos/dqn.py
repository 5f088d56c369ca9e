"""DQN: deep Q-learning on a replay memory (Mnih et al. 2015), with the parts of Rainbow as switches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Adam

from shoal.envs.vec_env import VecEnv
from shoal.learn.learner import Learner
from shoal.learn.losses import fused
from shoal.learn.targets import add_target, move_target, next_outputs
from shoal.math.q_learning import best_action, huber, q_target, quantile_huber
from shoal.math.rates import Schedule, apply_schedules, check_schedules, epsilon_at
from shoal.memory.settings import Replay
from shoal.nets import q_network
from shoal.nets.network import QNet
from shoal.nets.noisy import draw_noise
from shoal.nets.policy import Output
from shoal.run.run import Run
from shoal.types import Spec, Transitions, check_finite, check_positive, check_ranges


@dataclass(frozen=True, slots=True)
class DQN:
    """Settings of DQN."""

    num_steps: int = 4
    """Steps of each environment between two times of learning; more make larger batches of acting."""
    batch_size: int = 64
    """Transitions of each gradient step; more give less noisy ones."""
    n_step: int = 1
    """Rewards before the target network's value; more learn faster from late rewards, with more variance."""
    learning_rate: float = 5e-4
    """Adam's step size; larger learns faster but less stably."""
    learning_rate_schedule: Schedule = "constant"
    """Schedule of the learning rate: constant, linear or cosine (to 0 at total_timesteps), or a function."""
    adam_eps: float = 1e-8
    """Adam's epsilon; larger shrinks the steps of parameters with small gradients."""
    gamma: float = 0.99
    """Discount factor; closer to 1 looks further ahead."""
    target_update_interval: int = 250
    """Gradient steps between two updates of the target network; more are more stable and slower."""
    tau: float = 1.0
    """Share of the weights in each update of the target network; 1 copies them."""
    epsilon_start: float = 1.0
    """Share of random actions at first."""
    epsilon_end: float = 0.05
    """Share of random actions at last."""
    exploration_fraction: float = 0.2
    """Share of the run in which it falls from the first to the last, linearly; more explore longer."""
    double: bool = True
    """Double Q-learning: the network that learns chooses the next action, the target network values it."""
    huber: bool = True
    """Huber loss: errors beyond 1 count linearly; without, their square."""
    max_grad_norm: float = 10.0
    """Gradients are clipped to this global norm; larger allows larger and less stable steps."""
    replay: Replay = field(default_factory=Replay)
    """The replay memory; replay.alpha > 0 prioritizes."""
    network: QNet = field(default_factory=QNet)
    """Architecture of the default Q-network; it can be dueling, noisy, distributional."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        counts = ("num_steps", "batch_size", "n_step", "target_update_interval")
        shares = ("gamma", "epsilon_start", "epsilon_end", "exploration_fraction")
        check_ranges(self, **dict.fromkeys(counts, (1, inf)), tau=(1e-9, 1))
        check_ranges(self, **dict.fromkeys(shares, (0, 1)))
        check_positive(self, "learning_rate", "adam_eps", "max_grad_norm")
        check_finite(self, "learning_rate", "adam_eps")
        check_schedules(self)
        q_network.check_huber(self.network, huber=self.huber)
        q_network.check_no_memory(self.network, choose='algo="r2d2"')


Config = DQN
DEFAULTS = {"num_envs": 8}
PERTURBABLE = ("learning_rate", "gamma", "n_step", "tau", "epsilon_end")
PLAIN_POLICY = q_network.PlainQNetwork


def make_policy(spec: Spec, cfg: DQN, seed: int) -> nn.Module:
    """The Q-network, its weights drawn from `seed`."""
    return q_network.make_q_network(spec, cfg.network, seed)


def train(cfg: DQN, env: VecEnv, run: Run) -> nn.Module:
    """Trains a Q-network until the run ends, or one for each agent; returns the first."""
    agents = run.members(cfg)
    learners: dict[str, Learner] = {}
    for number, (name, cfg) in enumerate(agents.items()):
        policy = run.policy(env.spec, member=number)
        adam = partial(Adam, lr=cfg.learning_rate, eps=cfg.adam_eps)
        learners[name] = run.learner(policy, adam, max_grad_norm=cfg.max_grad_norm)
        add_target(learners[name], "target")
    stream = run.replay(env, learners, agents, cfg.replay)
    for name, cfg in agents.items():
        stream.explore(cfg.epsilon_start, name)
    for batch in run.loop(stream, learners):
        cfg, learner = agents[stream.agent], learners[stream.agent]
        online, target = learner.networks["policy"], learner.networks["target"]
        now = apply_schedules(cfg, run.progress, learner)
        if cfg.network.noisy:
            draw_noise(run.rng, online.module, target.module)
        asked = [target, online] if cfg.double else [target]
        outputs = next_outputs(asked, batch)
        choosing = q_network.action_values(outputs[-1])
        action = best_action(choosing, batch.next_action_mask)
        value = q_network.values_of(outputs[0], action)
        learned = q_target(batch.reward, batch.discount, value)
        learner.step(dqn_loss, batch.with_target(learned), now)
        if learner.updates % cfg.target_update_interval == 0:
            move_target(learner, "target", tau=cfg.tau)
        stream.prioritize(batch)
        stream.explore(epsilon_at(run.progress, cfg))
        stream.publish()
    return next(iter(learners.values())).policy


class DQNStatistics(NamedTuple):
    """Means over a batch."""

    value: Tensor
    q: Tensor


@fused(DQNStatistics)
def dqn_loss(
    output: Output, batch: Transitions, cfg: DQN
) -> tuple[Tensor, DQNStatistics]:
    """The mean of w h(Q(s, a) - target), h Huber's loss or half the square (Mnih et al. 2015; Schaul et al. 2016).

    With quantiles that of Dabney et al. 2018. `batch` holds transitions [B] with `target`; `batch.error` gets theirs.
    """
    chosen = value = q_network.values_of(output, batch.action)
    if chosen.dim() == 2:
        losses, value = quantile_huber(chosen, batch.target), chosen.mean(-1)
        error = value - batch.target.mean(-1)
    else:
        error = chosen - batch.target
        losses = huber(error) if cfg.huber else 0.5 * error.square()
    batch.error.copy_(error.detach())
    loss = (batch.weight * losses).mean()
    return loss, DQNStatistics(loss, value.mean())
