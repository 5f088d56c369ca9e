"""Constrained learning: a critic of costs, and the multiplier that weighs costs against rewards.

Ray, Achiam & Amodei 2019, "Benchmarking Safe Exploration in Deep Reinforcement Learning", section 4; Altman 1999,
"Constrained Markov Decision Processes".
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch.optim import Adam

from shoal.learn.curiosity import following
from shoal.math.losses import masked_mean, value_loss
from shoal.math.returns import gae
from shoal.nets.cost_critic import CostCritic
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from shoal.learn.learner import Learner
    from shoal.learn.minibatches import Minibatch
    from shoal.nets.network import Network
    from shoal.types import Floats, Spec, Steps, Tree

CRITIC = "cost_critic"
"""The learner's network that values costs."""


class CostStatistics(NamedTuple):
    """The mean over a minibatch."""

    cost_value: Tensor


def cost_value_loss(
    networks: Mapping[str, Any], batch: Minibatch, cfg: object
) -> tuple[Tensor, CostStatistics]:
    """0.5 (v(s) - target)^2 of the learner's critic of costs, over the valid steps of a minibatch with targets."""
    steps = batch.take()
    assert steps.target is not None
    errors = value_loss(networks[CRITIC](steps.obs), steps.target)
    loss = masked_mean(errors, steps.valid)
    return loss, CostStatistics(loss)


class LimitsCosts(Protocol):
    """Settings of a limit on costs."""

    @property
    def cost_limit(self) -> float:
        """What an episode may cost on average."""
        ...

    @property
    def multiplier_init(self) -> float:
        """The multiplier before any episode ended."""
        ...

    @property
    def multiplier_learning_rate(self) -> float:
        """How fast it follows."""
        ...

    @property
    def multiplier_gain(self) -> float:
        """And at once."""
        ...

    @property
    def cost_learning_rate(self) -> float:
        """The critic's step size."""
        ...

    @property
    def cost_gamma(self) -> float:
        """The discount of costs."""
        ...

    @property
    def cost_gae_lambda(self) -> float:
        """GAE's lambda of costs."""
        ...

    @property
    def network(self) -> Network:
        """Whose hidden layers the critic has."""
        ...


def add_cost_critic(learner: Learner, spec: Spec, cfg: LimitsCosts, seed: int) -> None:
    """Gives a learner the network `cost_critic`, drawn from `seed`.

    Raises:
        ConfigError: steps have no cost that a limit could be for.
    """
    if not spec.costs:
        raise ConfigError(
            f"{spec.env_id} has no costs, which cost_limit is for: set preprocessing.cost_key to the info key of each "
            "step's cost (also where step() returns six values), or choose an algorithm without a cost_limit"
        )
    critic = CostCritic(spec, cfg.network, seed)
    learner.add(CRITIC, critic, Adam, lr=cfg.cost_learning_rate)


@torch.no_grad()
def cost_gae(
    learner: Learner, steps: Steps, latest: Tree, cfg: LimitsCosts
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation of costs, by the learner's critic of them as it is now.

    As of rewards: truncated episodes bootstrap from their final observation, cut rollouts from the next one.

    Args:
        learner: with the network `cost_critic`.
        steps: a rollout [T, B] with costs.
        latest: what its rows saw after the last step [B, ...].
        cfg: the discount, and GAE's lambda.

    Returns:
        How much more each action cost than its state was said to [T, B], and targets of the critic [T, B].
    """
    assert steps.cost is not None
    critic = learner.module(CRITIC)
    value = critic(steps.obs)
    next_value = critic(following(steps, latest))
    costs = replace(
        steps,
        value=value.contiguous(),
        next_value=next_value.masked_fill(steps.terminated, 0.0).contiguous(),
    )
    gamma, gae_lambda = cfg.cost_gamma, cfg.cost_gae_lambda
    return gae(costs, gamma=gamma, gae_lambda=gae_lambda, reward=steps.cost)


def constrained_advantage(
    advantage: Tensor, cost_advantage: Tensor, valid: Tensor, multiplier: float
) -> Tensor:
    """(A - lambda A_C) / (1 + lambda): what an action is worth where a cost of 1 weighs as much as lambda rewards.

    Advantages have mean 0 and deviation 1 over the rollout's valid steps before, those of costs mean 0, as in the
    reference code of Ray et al. 2019. All are [T, B].
    """
    assert advantage.shape == cost_advantage.shape == valid.shape
    chosen = advantage[valid]
    deviation = chosen.std(correction=0) + 1e-8
    scaled = (advantage - chosen.mean()) / deviation
    costs = cost_advantage - cost_advantage[valid].mean()
    return (scaled - multiplier * costs) / (1 + multiplier)


class Multiplier:
    """The Lagrange multiplier of a limit on costs: it grows while episodes cost more, and falls while they cost less.

    I <- max(0, I + rate (J_C - d)), lambda = max(0, I + gain (J_C - d)), J_C being the mean cost of the episodes that
    ended and d the limit. The second term answers at once, which damps swings (Stooke, Achiam & Abbeel 2020,
    arXiv 2007.03964).
    """

    def __init__(self, cfg: LimitsCosts) -> None:
        """Before any episode ended."""
        self.value = self._integral = cfg.multiplier_init
        self._cfg = cfg

    def update(self, costs: Floats) -> float:
        """The multiplier after episodes that cost so much [N]; the same where there was none."""
        if len(costs):
            cfg = self._cfg
            error = float(costs.mean()) - cfg.cost_limit
            moved = self._integral + cfg.multiplier_learning_rate * error
            self._integral = max(0.0, moved)
            self.value = max(0.0, self._integral + cfg.multiplier_gain * error)
        return self.value

    def state(self) -> dict[str, float]:
        """All that `restore` needs."""
        return {"value": self.value, "integral": self._integral}

    def restore(self, state: Mapping[str, float]) -> None:
        """Continues from `state`."""
        self.value = float(state["value"])
        self._integral = float(state["integral"])
