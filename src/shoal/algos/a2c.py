"""A2C as PAAC does it: many rows, one policy, one synchronous update (Clemente et al. 2017, arXiv 1705.04862)."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.optim import RMSprop

from shoal import _native
from shoal.learn.lowering import STATS, Plan, lower
from shoal.learn.weights import pack
from shoal.math.losses import (
    masked_mean,
    normalise_advantage,
    policy_gradient_loss,
    value_loss,
)
from shoal.math.returns import n_step
from shoal.nets.distributions import masked
from shoal.nets.policy import Network, make_policy
from shoal.stream.schedules import schedule
from shoal.stream.self_play import SelfPlay, against
from shoal.types import ConfigError, Steps, check_ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from shoal.envs.vec_env import VecEnv
    from shoal.run.loop import Run

    Update = Callable[[Steps, Tensor], None]

A2C_STATS = (*STATS[:3], STATS[5])


@dataclass(frozen=True, slots=True)
class A2C:
    """Settings of A2C; the preset `paac` holds the paper's values."""

    total_timesteps: int = 1_000_000
    """Environment steps of the whole run; more steps, more training."""
    num_envs: int = 32
    """Rows that act together (the paper's n_e); more rows make the gradient less noisy."""
    num_steps: int = 5
    """Steps a rollout and of the n-step return (the paper's t_max); more steps, less bias, more variance."""
    learning_rate: float = 7e-4
    """RMSProp's step size; larger learns faster and less surely."""
    anneal: Literal["none", "linear"] = "linear"
    """Learning rate: constant, or linearly to 0 at total_timesteps."""
    alpha: float = 0.99
    """RMSProp's decay of the squared gradient; nearer to 1 averages longer."""
    rmsprop_eps: float = 1e-5
    """RMSProp's epsilon; larger damps steps of parameters with small gradients."""
    gamma: float = 0.99
    """Discount; nearer to 1 looks further ahead."""
    norm_adv: bool = False
    """Normalise the advantages of each update."""
    ent_coef: float = 0.01
    """Weight of the entropy; larger explores longer."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """The gradient's norm is cut to this; smaller is steadier and slower."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this before learning, so that values are of the order of 1 to 10."""
    schedule: Literal["sync", "overlap"] = "sync"
    """overlap: half of the rows act while the other half step."""
    act_block: int = 64
    """Rows in one forward while acting; part of the result's identity, not of its quality."""
    grad_shards: int = 2
    """Parts of a rollout whose gradients are computed apart; as many threads as this can help."""
    network: Network = field(default_factory=Network)
    """The default policy's shape."""
    self_play: SelfPlay = field(default_factory=SelfPlay)
    """Whom the policy meets in games of several agents."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        counts = (
            "total_timesteps",
            "num_envs",
            "num_steps",
            "act_block",
            "grad_shards",
        )
        positive = ("learning_rate", "rmsprop_eps", "max_grad_norm", "reward_scale")
        check_ranges(
            self,
            **dict.fromkeys(counts, (1, inf)),
            gamma=(0, 1),
            alpha=(0, 1),
            vf_coef=(0, inf),
        )
        check_ranges(self, **dict.fromkeys(positive, (1e-12, inf)))
        if self.norm_adv and self.num_envs * self.num_steps < 2:
            raise ConfigError(
                "a rollout of 1 step cannot be normalised; use norm_adv=False or more num_envs"
            )


Config = A2C


def train(
    cfg: A2C, env: VecEnv, run: Run, policy: nn.Module | None = None
) -> nn.Module:
    """Trains a policy (the default one unless given) until the run ends; returns it."""
    policy = (policy or make_policy(env.spec, cfg.network, run.settings.seed)).to(
        run.settings.device
    )
    optimizer = RMSprop(
        policy.parameters(), lr=cfg.learning_rate, alpha=cfg.alpha, eps=cfg.rmsprop_eps
    )
    acting = run.acting(cfg.act_block)
    how: Any = {
        "schedule": schedule(cfg.schedule),
        "acting": acting,
        "meter": run.meter,
    }
    stream = against(cfg.self_play, env, policy, num_steps=cfg.num_steps, **how)
    loop = run.loop(stream, state={"policy": policy, "optimizer": optimizer})
    settings = {
        "num_threads": acting.num_threads,
        "act_block": cfg.act_block,
        "grad_shards": cfg.grad_shards,
    }
    plan = lower(policy, env.spec, pack(policy), **settings) if acting.native else None
    update = (
        native_update(plan, optimizer, cfg, run)
        if plan
        else torch_update(policy, optimizer, cfg, run)
    )
    for rollout in loop:
        if (
            not rollout.valid.any()
        ):  # games of turns, so short a rollout that nobody's step is complete
            stream.publish(policy)
            continue
        if cfg.anneal == "linear":
            left = 1 - (stream.env_steps - rollout.reward.numel()) / cfg.total_timesteps
            optimizer.param_groups[0]["lr"] = cfg.learning_rate * left
        reward = rollout.reward * cfg.reward_scale
        update(
            rollout, n_step(rollout, gamma=cfg.gamma, n=cfg.num_steps, reward=reward)
        )
        run.log({"train/learning_rate": optimizer.param_groups[0]["lr"]})
        stream.publish(policy)
    return policy


def a2c_loss(
    output: Any,
    steps: Steps,
    target: Tensor,
    *,
    ent_coef: Any,
    vf_coef: Any,
    norm_adv: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """The loss over the last two axes [T, B], and its parts: policy, value, entropy.

    Leading axes are a population: losses are [m], and the coefficients may be tensors [m].
    """
    advantage = target - steps.value
    if norm_adv:
        advantage = normalise_advantage(advantage, steps.valid, axes=2)
    distribution = masked(output.distribution, steps.action_mask)
    log_prob = distribution.log_prob(steps.action)
    policy_loss = masked_mean(
        policy_gradient_loss(log_prob, advantage), steps.valid, axes=2
    )
    v_loss = masked_mean(value_loss(output.value, target), steps.valid, axes=2)
    entropy = masked_mean(distribution.entropy(), steps.valid, axes=2)
    return policy_loss - ent_coef * entropy + vf_coef * v_loss, [
        policy_loss,
        v_loss,
        entropy,
    ]


def torch_update(policy: nn.Module, optimizer: RMSprop, cfg: A2C, run: Run) -> Update:
    """One update on a whole rollout in torch: any policy, any device, whole sequences."""

    def update(rollout: Steps, target: Tensor) -> None:
        output = policy(rollout.obs, rollout.state, rollout.start)
        loss, stats = a2c_loss(
            output,
            rollout,
            target,
            ent_coef=cfg.ent_coef,
            vf_coef=cfg.vf_coef,
            norm_adv=cfg.norm_adv,
        )
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), cfg.max_grad_norm)
        optimizer.step()
        run.log(dict(zip(A2C_STATS, [*stats, norm], strict=True)))

    return update


def native_update(plan: Plan, optimizer: RMSprop, cfg: A2C, run: Run) -> Update:
    """The same update in native code, on the same weights and the same optimizer state."""
    rms_prop = plan.rms_prop(optimizer)
    for parameter in optimizer.param_groups[0]["params"]:
        optimizer.state[parameter].setdefault("step", torch.zeros(()))
    _, names, _ = _native.fused_losses()["a2c_loss"]
    settings = {name: getattr(cfg, name) for name in names}

    def update(rollout: Steps, target: Tensor) -> None:
        samples = plan.samples(rollout, advantage=target - rollout.value, target=target)
        rms_prop.learning_rate = optimizer.param_groups[0]["lr"]
        stats = np.zeros(len(A2C_STATS))
        index = np.flatnonzero(rollout.valid.numpy()).astype(np.int32)
        plan.native.loss_step(
            "a2c_loss", samples, index, settings, rms_prop, cfg.max_grad_norm, stats
        )
        run.log(dict(zip(A2C_STATS, stats.tolist(), strict=True)))

    return update
