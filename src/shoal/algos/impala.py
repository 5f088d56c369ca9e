"""IMPALA: V-trace corrects an actor-critic for what older weights chose (Espeholt et al. 2018, arXiv 1802.01561)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn
from torch.optim import Adam

from shoal.envs.vec_env import VecEnv
from shoal.learn.advantage_loss import AdvantageStatistics, advantage_loss
from shoal.learn.current import current
from shoal.learn.learner import Learner
from shoal.learn.losses import fused, with_normalized_advantage
from shoal.learn.minibatches import check_minibatches, minibatches
from shoal.math.rates import Schedule, apply_schedules, check_schedules
from shoal.math.returns import vtrace
from shoal.memory.kept_rollouts import KeptRollouts
from shoal.nets.policy import Network, Output
from shoal.run.run import Learners, Run
from shoal.types import Steps, check_finite, check_least, check_positive, check_ranges


@dataclass(frozen=True, slots=True)
class IMPALA:
    """Settings of IMPALA."""

    num_steps: int = 32
    """Steps of each environment per rollout, which V-trace looks ahead at most; more update less often."""
    num_minibatches: int = 4
    """Minibatches per epoch, one gradient step each; more give smaller minibatches and noisier steps."""
    update_epochs: int = 1
    """Epochs per rollout, each corrected anew; more learn more from each step, and older ones."""
    learning_rate: float = 6e-4
    """Adam's step size; larger learns faster but less stably."""
    learning_rate_schedule: Schedule = "linear"
    """Schedule of the learning rate: constant, linear or cosine (to 0 at total_timesteps), or a function."""
    adam_eps: float = 1e-5
    """Adam's epsilon; larger shrinks the steps of parameters with small gradients."""
    gamma: float = 0.99
    """Discount factor; closer to 1 looks further ahead."""
    vtrace_lambda: float = 1.0
    """V-trace's lambda; closer to 1 gives less bias and more variance in the advantages."""
    clip_rho: float = 1.0
    """A step weighs at most this, by what the policy would do of it now; larger corrects more, with more variance."""
    clip_c: float = 1.0
    """So much at most of what follows a step reaches it, by the same weights; larger looks further, more noisily."""
    corrected: bool = True
    """Weigh steps at all; false takes what older weights chose for the policy's own, to see what that costs."""
    replay_fraction: float = 0.0
    """Share of what is learned from that are old rollouts, of the last 32; more learn more from each step."""
    norm_adv: bool = False
    """Normalize the advantages of each minibatch."""
    ent_coef: float = 0.01
    """Entropy bonus coefficient; larger explores longer."""
    ent_coef_schedule: Schedule = "constant"
    """Schedule of the entropy bonus coefficient: as of the learning rate."""
    vf_coef: float = 0.5
    """Value loss coefficient; larger fits values faster, at the policy's cost where they share layers."""
    max_grad_norm: float = 0.5
    """Gradients are clipped to this global norm; larger allows larger and less stable steps."""
    network: Network = field(default_factory=Network)
    """Architecture of the default policy."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        check_least(self, num_steps=1, num_minibatches=1, update_epochs=1, vf_coef=0)
        check_ranges(self, gamma=(0, 1), vtrace_lambda=(0, 1))
        check_ranges(self, replay_fraction=(0, 0.95))
        check_positive(self, "learning_rate", "adam_eps", "max_grad_norm")
        check_positive(self, "clip_rho", "clip_c")
        check_finite(self, "learning_rate", "adam_eps", "ent_coef", "vf_coef")
        check_schedules(self)


Config = IMPALA
KEPT = 32
"""Rollouts that are kept where some are learned from again."""
DEFAULTS = {"num_envs": 32}
PERTURBABLE = ("learning_rate", "gamma", "vtrace_lambda", "ent_coef")


def train(cfg: IMPALA, env: VecEnv, run: Run) -> nn.Module:
    """Trains a policy until the run ends, or one for each agent; returns the first."""
    agents = run.members(cfg)
    learners: Learners = {}
    for number, (name, own) in enumerate(agents.items()):
        learners[name] = run.learner(
            run.policy(env.spec, member=number),
            Adam,
            lr=own.learning_rate,
            eps=own.adam_eps,
            max_grad_norm=own.max_grad_norm,
        )
    stream = run.rollouts(env, learners, num_steps=cfg.num_steps, latest=True)
    for name, own in agents.items():
        check_minibatches(stream.shape, own, whole_rows=learners[name].recurrent)
    kept = {name: kept_by(own, learners[name]) for name, own in agents.items()}
    parts = {f"kept_{name}": memory for name, memory in kept.items()}
    for rollout in run.loop(stream, learners, state=parts):
        learner, memory = learners[stream.agent], kept[stream.agent]
        now = apply_schedules(agents[stream.agent], run.progress, learner)
        for steps in (rollout, *memory.draw(now.replay_fraction, run.rng)):
            for _ in range(now.update_epochs):
                learn(learner, steps, now, run.rng)
        memory.keep(rollout)
        stream.publish()
    return next(iter(learners.values())).policy


def kept_by(cfg: IMPALA, learner: Learner) -> KeptRollouts:
    """A memory for old rollouts, which keeps none where none is learned from again."""
    return KeptRollouts(KEPT if cfg.replay_fraction else 0, learner.hardware.device)


def learn(
    learner: Learner, steps: Steps, cfg: IMPALA, rng: np.random.Generator
) -> None:
    """One pass over a rollout, corrected for the weights that acted."""
    log_prob, value, next_value = current(learner, steps)
    advantage, target = vtrace(
        steps,
        log_prob if cfg.corrected else steps.log_prob,
        value,
        gamma=cfg.gamma,
        vtrace_lambda=cfg.vtrace_lambda,
        clip_rho=cfg.clip_rho,
        clip_c=cfg.clip_c,
        next_value=next_value,
    )
    for batch in minibatches(steps, advantage, target, cfg.num_minibatches, rng):
        learner.step(impala_loss, batch, cfg)


@fused(AdvantageStatistics, prepare=with_normalized_advantage)
def impala_loss(
    output: Output, batch: Steps, cfg: IMPALA
) -> tuple[Tensor, AdvantageStatistics]:
    """-log pi(a|s) A - ent_coef H + vf_coef 0.5 (v - target)^2, A and target being V-trace's (section 4.2)."""
    return advantage_loss(output, batch, cfg)
