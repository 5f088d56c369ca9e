"""Decisions: a policy as a function of the features of chosen steps, everything else held as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces

from shoal.envs.names import action_names
from shoal.nets.distributions import NEVER, masked
from shoal.nets.epsilon_greedy import EpsilonGreedy
from shoal.types import map_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from shoal.report.explain.features import Features
    from shoal.report.explain.visits import Visits
    from shoal.types import Floats, Tree

BLOCK = 4096
"""Observations of one forward pass."""


class Decisions:
    """The policy at N steps: what its greedy action is, and how much it prefers it, by the features [N, F]."""

    def __init__(self, policy: nn.Module, features: Features, visits: Visits) -> None:
        """`policy` is on the CPU and is not changed."""
        self.policy, self.features, self.visits = policy, features, visits
        space = features.spec.action_space
        self.box = isinstance(space, spaces.Box)
        self.discrete = isinstance(space, spaces.Discrete)
        self.names = action_names(features.spec)
        self.start = int(space.start) if isinstance(space, spaces.Discrete) else 0

    def preferences(self, at: Sequence[int], x: Tensor, chosen: Tree) -> Tensor:
        """How much the policy prefers what it chose, [N, K]: differentiable in x [N, F].

        For Box actions the components of the action itself [N, K]; for a Q-network the chosen value less the mean of
        all that are allowed; else the log-probability of the choice. `chosen` is what `greedy` gave for these steps.
        """
        distribution = self._at(at, x)
        if self.box:
            return distribution.mode().squeeze(0).reshape(len(x), -1)
        choice = map_tree(_with_time, chosen)
        if isinstance(distribution, EpsilonGreedy):
            values = distribution.values
            if distribution.settled is not None:
                values = distribution.settled
            own = values.gather(-1, choice.unsqueeze(-1)).squeeze(-1)
            allowed = values > NEVER / 2
            mean = torch.where(allowed, values, 0.0).sum(-1) / allowed.sum(-1)
            return (own - mean).reshape(-1, 1)
        return distribution.log_prob(choice).reshape(-1, 1)

    @torch.no_grad()
    def greedy(self, at: Sequence[int], x: Tensor) -> Tree:
        """The greedy action at steps `at` with features x [N, F].

        Numbers as the environment takes them (clipped, or squashed and scaled, to the Box: what lies beyond a bound is
        done as the bound); choices as the policy's distribution counts them.
        """
        parts: list[Tree] = []
        for begin in range(0, len(x), BLOCK):
            part = slice(begin, begin + BLOCK)
            distribution = self._at(at[part], x[part])
            mode = distribution.mode()
            if self.box:
                mode = distribution.to_env(mode)
            parts.append(map_tree(_without_time, mode))
        return map_tree(_joined, *parts)

    def values(self, at: Sequence[int]) -> Floats:
        """The features of steps [N, F]."""
        return self.features.matrix([leaf[list(at)] for leaf in self.visits.leaves])

    def called(self, action: Any) -> str:
        """A greedy action in words: its option, or its numbers by their names."""
        if self.discrete:
            return self.names[int(action)]
        numbers = np.asarray(action).reshape(-1)
        digits = ".2f" if self.box else "g"
        told = zip(self.names, numbers, strict=True)
        return ", ".join(f"{name} {number:{digits}}" for name, number in told)

    def _at(self, at: Sequence[int], x: Tensor) -> Any:
        """The distribution at steps `at` with the features x [N, F] in place of their own, among what was allowed."""
        where = list(at)
        obs = self.features.tree([leaf[where] for leaf in self.visits.leaves], x)
        state = None
        if self.visits.state[where[0]] is not None:
            rows = [self.visits.state[step] for step in where]
            state = map_tree(_stacked, *rows)
        start = torch.from_numpy(self.visits.start[where]).unsqueeze(0)
        allowed = self.visits.mask
        mask = None
        if allowed is not None:
            mask = torch.from_numpy(allowed[where]).unsqueeze(0)
        return masked(self.policy(obs, state, start).distribution, mask)


def _with_time(leaf: Tensor) -> Tensor:
    return leaf.unsqueeze(0)


def _without_time(leaf: Tensor) -> Tensor:
    return leaf.squeeze(0)


def _joined(*leaves: Tensor) -> Tensor:
    return torch.cat(leaves)


def _stacked(*leaves: Tensor) -> Tensor:
    return torch.stack(leaves)
