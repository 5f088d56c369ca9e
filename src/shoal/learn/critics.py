"""Critics beside an actor: losses and values, in native code where the networks are shoal's own, in torch otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from shoal import _native
from shoal.learn.losses import lowered
from shoal.math.actor_critic import critic_loss, smoothed, soft_value
from shoal.nets.actors import DeterministicActor, StochasticActor, policy_of
from shoal.nets.critics import Critics, expected
from shoal.nets.encoder import Encoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from shoal.learn.learner import Learner
    from shoal.types import Transitions, Tree


class CriticStatistics(NamedTuple):
    """Means over a batch."""

    value: Tensor
    q: Tensor


class SoftActorStatistics(NamedTuple):
    """Means over a batch; the entropy in nats."""

    policy: Tensor
    entropy: Tensor


class Smoothing(NamedTuple):
    """Noise of a target policy: its deviation, and what it is cut to."""

    deviation: float
    clip: float


def native_critics(
    learner: Learner, batch: Transitions, cfg: object
) -> tuple[list[float], Tensor] | None:
    """The statistics and the gradient of `critics_loss`; None where only torch has them."""
    plan = plan_of(learner, "policy", "critics")
    if plan is None:
        return None
    critics = learner.networks["critics"]
    gradient, stats = (
        torch.empty_like(critics.flat),
        torch.empty(2, dtype=torch.float64),
    )
    plan.critics_gradient(
        _features(critics.module, batch.obs),
        batch.action.numpy(),
        bool(critics.module.squash),
        batch.target.numpy(),
        batch.weight.numpy(),
        gradient.numpy(),
        batch.error.numpy(),
        stats.numpy(),
    )
    return stats.tolist(), gradient


@lowered(CriticStatistics, native_critics)
def critics_loss(
    networks: Mapping[str, Critics], batch: Transitions, cfg: object
) -> tuple[Tensor, CriticStatistics]:
    """Half the squared errors of the learner's `critics`, summed over them; `batch.error` gets their mean error.

    Haarnoja et al. 2018, arXiv 1812.05905, eq. 5, and Fujimoto et al. 2018, arXiv 1802.09477, algorithm 1.
    """
    values = networks["critics"].of(batch.obs, batch.action)
    batch.error.copy_(values.detach().mean(0) - batch.target)
    loss = critic_loss(values, batch.target, batch.weight)
    return loss, CriticStatistics(loss, values.mean())


@torch.no_grad()
def soft_next_value(learner: Learner, batch: Transitions, noise: Tensor) -> Tensor:
    """The soft value [B] of the next observations: of what the policy does there, by the critics `target`.

    Haarnoja et al. 2018, arXiv 1812.05905, eq. 3; `noise` [B, D] is what the actions are drawn with.
    """
    temperature = learner.module("temperature")()
    plan = plan_of(learner, "policy", "target")
    if plan is None:
        actor = learner.module("policy")
        policy = policy_of(actor, batch.next_obs, batch.next_action_mask)
        target = learner.module("target")
        value, log_prob = expected(target, batch.next_obs, policy, noise)
        return soft_value(value, log_prob, temperature)
    value = torch.empty(len(batch.reward))
    plan.soft_values(
        _features(learner.networks["policy"].module, batch.next_obs),
        _features(learner.networks["target"].module, batch.next_obs),
        noise.numpy(),
        float(temperature),
        value.numpy(),
    )
    return value


@torch.no_grad()
def smoothed_next_value(
    learner: Learner, batch: Transitions, noise: Tensor, smoothing: Smoothing
) -> Tensor:
    """The value [B] of the next observations: of the policy `target` with noise, by the critics `target_critics`.

    Fujimoto et al. 2018, arXiv 1802.09477, eq. 14; `noise` [B, D] is standard normal.
    """
    plan = plan_of(learner, "target", "target_critics")
    if plan is None:
        action = policy_of(learner.module("target"), batch.next_obs, None).mode()
        action = smoothed(action, noise, smoothing.deviation, clip=smoothing.clip)
        return learner.module("target_critics")(batch.next_obs, action).amin(0)
    value = torch.empty(len(batch.reward))
    plan.smoothed_values(
        _features(learner.networks["target"].module, batch.next_obs),
        _features(learner.networks["target_critics"].module, batch.next_obs),
        noise.numpy(),
        smoothing.deviation,
        smoothing.clip,
        value.numpy(),
    )
    return value


def native_soft_actor(
    learner: Learner, drawn: tuple[Transitions, Tensor], cfg: object
) -> tuple[list[float], Tensor] | None:
    """The loss, the entropy and the gradient of a squashed Gaussian actor; None where only torch has them."""
    plan = plan_of(learner, "policy", "critics")
    if plan is None:
        return None
    batch, noise = drawn
    policy, critics = learner.networks["policy"], learner.networks["critics"]
    gradient, stats = torch.empty_like(policy.flat), torch.empty(2, dtype=torch.float64)
    plan.soft_gradient(
        _features(policy.module, batch.obs),
        _features(critics.module, batch.obs),
        noise.numpy(),
        float(learner.module("temperature")()),
        gradient.numpy(),
        stats.numpy(),
    )
    return stats.tolist(), gradient


@lowered(SoftActorStatistics, native_soft_actor)
def soft_actor_loss(
    networks: Mapping[str, Any], drawn: tuple[Transitions, Tensor], cfg: object
) -> tuple[Tensor, SoftActorStatistics]:
    """The mean of temperature * log pi(a | s) - min Q(s, a), a = f(noise; s), of the learner's `policy` and `critics`.

    Haarnoja et al. 2018, arXiv 1812.05905, eq. 9. `drawn`: transitions [B], and standard normal noise [B, D].
    """
    batch, noise = drawn
    policy = policy_of(networks["policy"], batch.obs, batch.action_mask)
    value, log_prob = expected(networks["critics"], batch.obs, policy, noise)
    loss = -soft_value(value, log_prob, networks["temperature"]()).mean()
    return loss, SoftActorStatistics(loss, -log_prob.mean())


def native_deterministic_actor(
    learner: Learner, batch: Transitions, cfg: object
) -> tuple[list[float], Tensor] | None:
    """The loss of the first critic and the gradient of a deterministic actor; None where only torch has them."""
    plan = plan_of(learner, "policy", "critics")
    if plan is None:
        return None
    policy, critics = learner.networks["policy"], learner.networks["critics"]
    gradient, stats = torch.empty_like(policy.flat), torch.empty(1, dtype=torch.float64)
    plan.deterministic_gradient(
        _features(policy.module, batch.obs),
        _features(critics.module, batch.obs),
        gradient.numpy(),
        stats.numpy(),
    )
    return stats.tolist(), gradient


def plan_of(learner: Learner, actor: str, critics: str) -> _native.ActorCritic | None:
    """The networks of these names in native code; None where that does not have them as they are now."""
    modules: list[Any] = []
    for name in (actor, critics):
        network = learner.networks[name]
        network.rejoin()
        if not network.native_towers or not _is_as_made(network.module):
            return None
        modules.append(network.module)
    first, second = modules
    if type(second) is not Critics or type(first) is Critics or not first.size:
        return None
    towers = [first.body.native, *(tower.native for tower in second.towers)]
    known = learner.plans.get((actor, critics))
    if known is None or known.towers != towers:
        if None in towers:
            return None
        known = learner.plans[actor, critics] = ActorCriticPlan(towers, first.size)
    return known.native


class ActorCriticPlan:
    """An actor's tower and critics' towers that native code calls together."""

    def __init__(self, towers: list[Any], action_size: int) -> None:
        """Of native towers, the actor's first."""
        self.towers = towers
        actor, *critics = (tower.plan for tower in towers)
        self.native = _native.ActorCritic(actor, critics, action_size)


def _is_as_made(module: nn.Module) -> bool:
    """Whether a network has the layers that shoal gave it, on flat observations, and nothing hangs on it."""
    if type(module) not in (StochasticActor, DeterministicActor, Critics):
        return False
    encoder: Any = module.encoder
    if type(encoder) is not Encoder:
        return False
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    return not any(vars(m)[name] for m in (module, encoder) for name in hooks)


def _features(module: Any, obs: Tree) -> Any:
    """What a network's encoder makes of observations [B, *obs]: float32 [B, size]."""
    with torch.no_grad():
        return module.encoder(obs).contiguous().numpy()
