"""A policy for each group of agents with equal spaces, as one module that any algorithm trains."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from shoal.nets.heads import deviations, head_size
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.types import Spec


class PerGroup(nn.Module):
    """Groups share nothing: an agent is played, judged and learned by its own group's networks alone.

    Which group that is, the last numbers of an observation say, one for each group.
    """

    def __init__(self, spec: Spec, *, hidden: tuple[int, ...] = (64, 64)) -> None:
        """`hidden`: units of each layer of each network. ConfigError where the agents' spaces are all equal."""
        super().__init__()
        if spec.groups < 2:
            raise ConfigError(
                f"the agents of {spec.env_id} all have the same spaces; the default policy plays them"
            )
        self.groups = spec.groups
        size, out, boxes = (
            spec.observation.single.shape[0],
            head_size(spec.action_space),
            deviations(spec.action_space),
        )
        self.actors = nn.ModuleList(
            _tower([size, *hidden, out], last_gain=0.01) for _ in range(self.groups)
        )
        self.critics = nn.ModuleList(
            _tower([size, *hidden, 1], last_gain=1.0) for _ in range(self.groups)
        )
        self.log_std = nn.Parameter(torch.zeros(self.groups, boxes)) if boxes else None

    def forward(self, obs: Tensor) -> tuple[Tensor, ...]:
        """[N, size] -> logits [N, out] (or means and log standard deviations) and values [N]."""
        own = obs[:, -self.groups :].T.unsqueeze(-1)
        actor = (own * torch.stack([tower(obs) for tower in self.actors])).sum(0)
        value = (
            (own * torch.stack([tower(obs) for tower in self.critics]))
            .sum(0)
            .squeeze(-1)
        )
        if self.log_std is None:
            return actor, value
        return actor, (own * self.log_std.unsqueeze(1)).sum(0), value


def _tower(sizes: list[int], *, last_gain: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, (first, last) in enumerate(pairwise(sizes)):
        layer = nn.Linear(first, last)
        nn.init.orthogonal_(
            layer.weight, last_gain if index == len(sizes) - 2 else 2**0.5
        )
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])
