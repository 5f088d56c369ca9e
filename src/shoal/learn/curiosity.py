"""Curiosity: a bonus on rewards for observations that were not seen often (random network distillation).

Burda et al. 2018, arXiv 1810.12894: a network learns to tell the features that a fixed random one gives to an
observation; where it is wrong, little like it was seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.optim import Adam

from shoal.learn.learner import POLICY, Learner
from shoal.nets.distillation import Features
from shoal.types import check_finite, check_positive, check_ranges, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from shoal.learn.hardware import Hardware
    from shoal.types import Spec, Steps, Transitions, Tree

TARGET = "target"
MINIBATCH = 256
"""Observations of a gradient step, at most."""


@dataclass(frozen=True, slots=True)
class Curiosity:
    """A bonus on rewards for observations that were not seen often."""

    coef: float = 0.0
    """What a bonus of one standard deviation adds to a reward; larger explores more. 0: no bonus."""
    learning_rate: float = 1e-4
    """Adam's step size of the network that learns what was seen; larger forgets the new faster."""
    share: bool = True
    """With several agents: what one of them has seen is new to none. Off: each has a curiosity of its own."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(self, coef=(0, inf))
        check_positive(self, "learning_rate")
        check_finite(self, "coef", "learning_rate")


class DistillationStatistics(NamedTuple):
    """The mean over a minibatch."""

    error: Tensor


def distillation_loss(
    networks: Mapping[str, Any], seen: tuple[Tree, Tensor], cfg: Curiosity
) -> tuple[Tensor, DistillationStatistics]:
    """The mean of e(s) = |f'(s) - f(s)|^2 / features, f the random network (Burda et al. 2018, section 2.2).

    `seen` is N observations, and room [N] for the error of each, which is left there.
    """
    obs, errors = seen
    with torch.no_grad():
        features = networks[TARGET](obs)
    missed = (networks[POLICY](obs) - features).square().mean(-1)
    errors.copy_(missed.detach())
    loss = missed.mean()
    return loss, DistillationStatistics(loss)


class Distillation:
    """A random network, and one that learns its features of whatever is seen.

    The bonus of an observation is its error e(s) when it is learned from, divided by the running standard deviation of
    all errors.
    """

    def __init__(
        self, spec: Spec, cfg: Curiosity, *, hardware: Hardware, seed: int
    ) -> None:
        """Has seen nothing."""
        self._cfg = cfg
        learns, random = Features(spec, 2, seed), Features(spec, 1, seed + 1)
        if not list(random.encoder.parameters()):
            learns.encoder = random.encoder  # all that it has are statistics
        self._encoders = list(dict.fromkeys((learns.encoder, random.encoder)))
        self._learner = Learner(
            learns, Adam, lr=cfg.learning_rate, hardware=hardware, max_grad_norm=inf
        )
        self._learner.add(TARGET, random)
        self._scale = random.scale

    def bonus(self, obs: Tree, count: int) -> Tensor:
        """The bonus [N] of `count` observations, which are learned from, at most MINIBATCH in a gradient step."""
        for encoder in self._encoders:
            encoder.observe(obs)
        parts = -(-count // MINIBATCH)
        errors = torch.zeros(count, device=self._learner.hardware.device)
        for first in range(parts):
            at = slice(first, None, parts)
            seen = select(obs, at), errors[at]
            self._learner.update(distillation_loss, seen, self._cfg, of=POLICY)
        self._scale.merge(errors[:, None])
        return errors * self._scale.inv_std

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return self._learner.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`."""
        self._learner.restore(state)


class Bonuses:
    """Who is curious in which way, and the bonuses on what they learn from; memories and returns never hold them."""

    def __init__(
        self,
        agents: Mapping[str, Distillation],
        coef: float,
        note: Callable[[str, Tensor], None],
    ) -> None:
        """Of agents by name, who may share one; `note` is told the mean bonus by its metric's name."""
        self._agents, self._coef, self._note = agents, coef, note

    def on_steps(self, name: str, steps: Steps, last: Tree) -> Steps:
        """A rollout with the bonuses of an agent in its rewards; of one who is not curious as it is.

        Args:
            name: the agent.
            steps: [T, B].
            last: what its rows saw after the last step [B, ...].
        """
        if name not in self._agents:
            return steps
        seen = select(following(steps, last), steps.valid)
        bonus = torch.zeros_like(steps.reward)
        bonus[steps.valid] = self._of(name, seen, int(steps.valid.sum()))
        return replace(steps, reward=steps.reward + bonus)

    def on_batch(self, name: str, batch: Transitions) -> None:
        """Adds an agent's bonuses to the rewards of a batch, for what followed the last step of each transition."""
        batch.reward.add_(self._of(name, batch.next_obs, len(batch.key)))

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {name: made.state() for name, made in self._distinct().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`."""
        for name, made in self._distinct().items():
            made.restore(state[name])

    def _of(self, name: str, obs: Tree, count: int) -> Tensor:
        bonus = self._agents[name].bonus(obs, count) * self._coef
        several = len(self._agents) > 1
        self._note(
            f"curiosity/bonus/{name}" if several else "curiosity/bonus", bonus.mean()
        )
        return bonus

    def _distinct(self) -> dict[str, Distillation]:
        """Each once, by the name of the first agent who has it."""
        found: dict[int, tuple[str, Distillation]] = {}
        for name, made in self._agents.items():
            found.setdefault(id(made), (name, made))
        return dict(found.values())


def following(steps: Steps, last: Tree) -> Tree:
    """What was seen after each step [T, B, ...]: the final observation where an episode ended."""
    ended = steps.final_index >= 0
    places = steps.final_index[ended].long()

    def after(seen: Tensor, final: Tensor, latest: Tensor) -> Tensor:
        moved = torch.cat([seen[1:], latest[None]])
        moved[ended] = final[places]
        return moved

    return map_tree(after, steps.obs, steps.final_obs, last)
