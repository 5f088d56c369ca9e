"""Target networks: slow copies of a network, which the targets of bootstrapped losses are computed with."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING

import torch

from shoal.learn.weights import copy_buffers
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.learn.learner import Learner
    from shoal.learn.trainable import Trainable
    from shoal.nets.policy import Output
    from shoal.types import Transitions, Tree


def add_target(learner: Learner, name: str, *, of: str = "policy") -> None:
    """Adds a copy of the network `of`, which no gradient changes, as the network `name`.

    It is part of the learner's checkpoints. ConfigError: there is no such network, or the name is taken.
    """
    if of not in learner.networks:
        raise ConfigError(f"the learner has no network {of!r} to make a target of")
    module = copy.deepcopy(learner.networks[of].module)
    learner.add(name, module.requires_grad_(requires_grad=False))


@torch.no_grad()
def outputs_of(network: Trainable, obs: Tree) -> Output:
    """What a network without memory says of observations [B, ...], as its weights are now; without gradients."""
    network.flat  # noqa: B018  # parameters that were replaced are taken over
    if network.plan is not None:
        return network.plan.outputs(obs)
    return network.module(obs, None, None)


def next_outputs(networks: Sequence[Trainable], batch: Transitions) -> list[Output]:
    """`outputs_of` each network for `batch.next_obs`; those of images on threads of the last one's, which is trained.

    The number of threads changes no bit.
    """
    work = partial(outputs_of, obs=batch.next_obs)
    return networks[-1].shards.each(work, networks, size=len(batch.key))


def move_target(
    learner: Learner, name: str, *, of: str = "policy", tau: float = 1.0
) -> None:
    """Target = (1 - tau) target + tau weights; tau = 1 copies (Lillicrap et al. 2016, arXiv 1509.02971).

    Buffers, such as normalization statistics, are copied.
    """
    source, target = learner.networks[of], learner.networks[name]
    with torch.no_grad():
        if tau == 1:
            target.flat.copy_(source.flat)
        else:
            target.flat.lerp_(source.flat, tau)
    copy_buffers(source.layers, target.layers)
    if target.plan is not None:
        target.plan.refresh_normalizer()
