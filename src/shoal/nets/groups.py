"""A policy for each group of agents with equal spaces, as one module that any algorithm trains."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from shoal.nets.heads import deviations, head_size
from shoal.nets.layers import RELU_GAIN
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
        size = spec.observation.single.shape[0]
        boxes = deviations(spec.action_space)
        actor_sizes = [size, *hidden, head_size(spec.action_space)]
        critic_sizes = [size, *hidden, 1]
        self.actors = _towers(self.groups, actor_sizes, last_gain=0.01)
        self.critics = _towers(self.groups, critic_sizes, last_gain=1.0)
        self.log_std: nn.Parameter | None = None
        if boxes:
            self.log_std = nn.Parameter(torch.zeros(self.groups, boxes))

    def forward(self, obs: Tensor) -> tuple[Tensor, ...]:
        """[N, size] -> logits [N, out] (or means and log standard deviations) and values [N]."""
        own = obs[:, -self.groups :].T.unsqueeze(-1)
        outputs = torch.stack([tower(obs) for tower in self.actors])
        values = torch.stack([tower(obs) for tower in self.critics])
        actor = (own * outputs).sum(0)
        value = (own * values).sum(0).squeeze(-1)
        if self.log_std is None:
            return actor, value
        log_std = own * self.log_std.unsqueeze(1)
        return actor, log_std.sum(0), value


def _towers(count: int, sizes: list[int], *, last_gain: float) -> nn.ModuleList:
    return nn.ModuleList(_tower(sizes, last_gain=last_gain) for _ in range(count))


def _tower(sizes: list[int], *, last_gain: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    gains = [RELU_GAIN] * (len(sizes) - 2) + [last_gain]
    for (fan_in, fan_out), gain in zip(pairwise(sizes), gains, strict=True):
        layer = nn.Linear(fan_in, fan_out)
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
        layers.append(layer)
        layers.append(nn.Tanh())
    return nn.Sequential(*layers[:-1])
