"""PPO: proximal policy optimisation with a clipped surrogate (Schulman et al. 2017, arXiv 1707.06347)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from math import inf
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch.optim import Adam

from shoal import _native
from shoal.learn.lowering import STATS, Plan, lower
from shoal.learn.shards import Shards, has_images
from shoal.learn.weights import pack
from shoal.math.losses import (
    approximate_kl,
    masked_mean,
    normalise_advantage,
    ppo_policy_loss,
    value_loss,
)
from shoal.math.rates import adapted_rate
from shoal.math.returns import gae
from shoal.nets.distributions import masked
from shoal.nets.policy import Network, make_policy
from shoal.stream.schedules import schedule
from shoal.stream.self_play import SelfPlay, against
from shoal.types import ConfigError, Steps, check_ranges, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from shoal.envs.vec_env import VecEnv
    from shoal.run.loop import Run

    Update = Callable[[Steps, Tensor, Tensor], Iterator[float]]


@dataclass(frozen=True, slots=True)
class PPO:
    """Settings of PPO."""

    total_timesteps: int = 1_000_000
    """Environment steps of the whole run; more steps, more training."""
    num_envs: int = 16
    """Rows that act together; more rows make larger, more varied rollouts and faster steps."""
    num_steps: int = 128
    """Steps a rollout; longer ones see further and update less often."""
    num_minibatches: int = 8
    """Parts of a rollout, one gradient step each; more parts, smaller and more numerous steps."""
    update_epochs: int = 4
    """Passes over a rollout; more passes use the data better and drift further from it."""
    learning_rate: float = 3e-4
    """Adam's step size; larger learns faster and less surely."""
    anneal: Literal["none", "linear", "kl"] = "none"
    """Learning rate: constant, linearly to 0 at total_timesteps, or adapted to keep the KL near target_kl."""
    adam_eps: float = 1e-5
    """Adam's epsilon; larger damps steps of parameters with small gradients."""
    gamma: float = 0.99
    """Discount; nearer to 1 looks further ahead."""
    gae_lambda: float = 0.95
    """Nearer to 1: less bias, more variance in the advantages."""
    clip_coef: float = 0.2
    """How far the ratio of probabilities may move before its gradient stops."""
    clip_vloss: bool = False
    """Clip the value's step around its old prediction as well."""
    norm_adv: bool = True
    """Normalise the advantages of each minibatch."""
    ent_coef: float = 0.0
    """Weight of the entropy; larger explores longer."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """The gradient's norm is cut to this; smaller is steadier and slower."""
    target_kl: float | None = None
    """Stop an update's epochs once the KL exceeds this; with anneal="kl" the KL to aim at."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this before learning, so that values are of the order of 1 to 10."""
    schedule: Literal["sync", "overlap"] = "sync"
    """overlap: half of the rows act while the other half step."""
    act_block: int = 64
    """Rows in one forward while acting; part of the result's identity, not of its quality."""
    grad_shards: int = 2
    """Parts of a minibatch whose gradients are computed apart; as many threads as this can help."""
    network: Network = field(default_factory=Network)
    """The default policy's shape."""
    self_play: SelfPlay = field(default_factory=SelfPlay)
    """Whom the policy meets in games of several agents."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, with what would."""
        counts = (
            "num_envs",
            "num_steps",
            "num_minibatches",
            "update_epochs",
            "act_block",
            "grad_shards",
        )
        positive = (
            "learning_rate",
            "adam_eps",
            "clip_coef",
            "max_grad_norm",
            "reward_scale",
        )
        check_ranges(
            self,
            total_timesteps=(1, inf),
            **dict.fromkeys(counts, (1, inf)),
            gamma=(0, 1),
            gae_lambda=(0, 1),
        )
        check_ranges(self, **dict.fromkeys(positive, (1e-12, inf)), vf_coef=(0, inf))
        batch = self.num_envs * self.num_steps
        if batch % self.num_minibatches:
            whole, least = (
                (self.num_envs if self.network.recurrent != "none" else batch),
                1 + self.norm_adv,
            )
            tried = range(1, min(whole, self.num_minibatches) + 1)
            fits = max(
                (n for n in tried if whole % n == 0 and batch // n >= least), default=1
            )
            raise ConfigError(
                f"{self.num_envs} envs x {self.num_steps} steps = {batch} steps do not split into "
                f"{self.num_minibatches} minibatches; num_minibatches={fits} would"
            )
        if self.norm_adv and batch // self.num_minibatches < 2:
            raise ConfigError(
                "a minibatch of 1 step cannot be normalised; use fewer num_minibatches or norm_adv=False"
            )
        if self.network.recurrent != "none" and self.num_envs % self.num_minibatches:
            raise ConfigError(
                f"recurrent minibatches are whole rows: num_minibatches={self.num_minibatches} must divide "
                f"num_envs={self.num_envs}"
            )
        if self.target_kl is not None:
            check_ranges(self, target_kl=(1e-12, inf))
        elif self.anneal == "kl":
            raise ConfigError('anneal="kl" needs target_kl; 0.01 is a usual value')


Config = PPO


def train(
    cfg: PPO, env: VecEnv, run: Run, policy: nn.Module | None = None
) -> nn.Module:
    """Trains a policy (the default one unless given) until the run ends; returns it."""
    policy = (policy or make_policy(env.spec, cfg.network, run.settings.seed)).to(
        run.settings.device
    )
    optimizer = Adam(
        policy.parameters(),
        lr=cfg.learning_rate,
        eps=cfg.adam_eps,
        fused=has_images(policy) or None,
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
            done = (stream.env_steps - rollout.reward.numel()) / cfg.total_timesteps
            optimizer.param_groups[0]["lr"] = cfg.learning_rate * (1 - done)
        reward = rollout.reward * cfg.reward_scale
        advantage, target = gae(
            rollout, gamma=cfg.gamma, gae_lambda=cfg.gae_lambda, reward=reward
        )
        kl = 0.0
        for kl in islice(update(rollout, advantage, target), cfg.update_epochs):
            if cfg.target_kl is not None and cfg.anneal != "kl" and kl > cfg.target_kl:
                break
        if cfg.anneal == "kl":
            optimizer.param_groups[0]["lr"] = adapted_rate(
                optimizer.param_groups[0]["lr"], kl, cfg.target_kl or inf
            )
        run.log({"train/learning_rate": optimizer.param_groups[0]["lr"]})
        stream.publish(policy)
    return policy


def ppo_loss(
    output: Any, batch: Steps, advantage: Tensor, target: Tensor, cfg: PPO
) -> tuple[Tensor, list[Tensor]]:
    """The whole loss of a minibatch and its parts: policy, value, entropy, approximate KL, clipped fraction."""
    valid = batch.valid
    if cfg.norm_adv:
        advantage = normalise_advantage(advantage, valid)
    distribution = masked(output.distribution, batch.action_mask)
    log_prob = distribution.log_prob(batch.action)
    policy_loss = masked_mean(
        ppo_policy_loss(log_prob, batch.log_prob, advantage, cfg.clip_coef), valid
    )
    v_loss = masked_mean(
        value_loss(
            output.value, target, batch.value if cfg.clip_vloss else None, cfg.clip_coef
        ),
        valid,
    )
    entropy = masked_mean(distribution.entropy(), valid)
    with torch.no_grad():
        kl = masked_mean(approximate_kl(log_prob, batch.log_prob), valid)
        outside = ((log_prob - batch.log_prob).exp() - 1).abs() > cfg.clip_coef
        clipped = masked_mean(outside.float(), valid)
    return policy_loss - cfg.ent_coef * entropy + cfg.vf_coef * v_loss, [
        policy_loss,
        v_loss,
        entropy,
        kl,
        clipped,
    ]


def torch_update(policy: nn.Module, optimizer: Adam, cfg: PPO, run: Run) -> Update:
    """Passes over a rollout in torch, for any policy on any device; each yields its mean KL."""
    recurrent = cast("Any", policy).initial_state(1) is not None
    if recurrent and cfg.num_envs % cfg.num_minibatches:
        raise ConfigError(
            f"a recurrent policy's num_minibatches must divide num_envs={cfg.num_envs}"
        )
    shards = Shards(
        policy,
        1 if recurrent else cfg.grad_shards,
        num_threads=run.acting(1).num_threads,
    )

    def update(rollout: Steps, advantage: Tensor, target: Tensor) -> Iterator[float]:
        while True:
            kls: list[Tensor] = []
            for index in minibatches(
                run.rng, rollout.valid, cfg.num_minibatches, rows=recurrent
            ):
                at = torch.from_numpy(index).long().to(advantage.device)
                gain, goal, valid = (
                    _take(x, at, rows=recurrent)
                    for x in (advantage, target, rollout.valid)
                )
                gain = normalise_advantage(gain, valid) if cfg.norm_adv else gain

                def loss(
                    part: slice,
                    at: Tensor = at,
                    gain: Tensor = gain,
                    goal: Tensor = goal,
                ) -> Any:
                    batch = take(rollout, at[part], rows=recurrent)
                    seen = policy(batch.obs, batch.state, batch.start)
                    return ppo_loss(
                        seen,
                        batch,
                        gain[:, part],
                        goal[:, part],
                        replace(cfg, norm_adv=False),
                    )

                stats = shards.backward(loss, len(at))
                norm = torch.nn.utils.clip_grad_norm_(
                    policy.parameters(), cfg.max_grad_norm
                )
                optimizer.step()
                run.log(dict(zip(STATS, [*stats, norm], strict=True)))
                kls.append(stats[3])
            yield float(torch.stack(kls).mean())

    return update


def native_update(plan: Plan, optimizer: Adam, cfg: PPO, run: Run) -> Update:
    """The same passes in native code, on the same weights and the same optimizer state."""
    adam = plan.adam(optimizer)
    parameters = optimizer.param_groups[0]["params"]
    step = torch.tensor(float(adam.step))
    for parameter in parameters:
        optimizer.state[parameter]["step"] = step
    _, names, _ = _native.fused_losses()["ppo_loss"]
    settings = {name: getattr(cfg, name) for name in names}

    def update(rollout: Steps, advantage: Tensor, target: Tensor) -> Iterator[float]:
        samples = plan.samples(rollout, advantage=advantage, target=target)
        adam.learning_rate = optimizer.param_groups[0]["lr"]
        stats = np.zeros(len(STATS))
        while True:
            total, number = np.zeros(len(STATS)), 0
            for index in minibatches(
                run.rng, rollout.valid, cfg.num_minibatches, rows=False
            ):
                plan.native.loss_step(
                    "ppo_loss", samples, index, settings, adam, cfg.max_grad_norm, stats
                )
                total += stats
                number += 1
            step.fill_(adam.step)
            means = (total / number).tolist()
            run.log(dict(zip(STATS, means, strict=True)))
            yield means[3]

    return update


def minibatches(
    rng: np.random.Generator, valid: Tensor, parts: int, *, rows: bool
) -> Iterator[np.ndarray[Any, Any]]:
    """Random parts of a rollout as int32 indices: of its valid steps (t * B + b), or of whole rows."""
    whole = np.arange(valid.shape[1]) if rows else np.flatnonzero(valid.cpu().numpy())
    shuffled = rng.permutation(whole).astype(np.int32)
    edges = [len(shuffled) * part // parts for part in range(parts + 1)]
    yield from (shuffled[first:last] for first, last in pairwise(edges) if last > first)


def take(steps: Steps, index: Tensor, *, rows: bool) -> Steps:
    """The chosen rows with all their steps, or the chosen steps as [1, M]."""

    def pick(x: Tensor) -> Tensor:
        return _take(x, index, rows=rows)

    names = (
        ("obs", *STEP_ARRAYS)
        if steps.action_mask is None
        else ("obs", *STEP_ARRAYS, "action_mask")
    )
    trees = {name: map_tree(pick, getattr(steps, name)) for name in names}
    return replace(steps, state=select(steps.state, index) if rows else None, **trees)


STEP_ARRAYS = (
    "start",
    "action",
    "log_prob",
    "value",
    "next_value",
    "reward",
    "terminated",
    "truncated",
    "valid",
)


def _take(x: Tensor, index: Tensor, *, rows: bool) -> Tensor:
    return x[:, index] if rows else x.flatten(0, 1).index_select(0, index).unsqueeze(0)
