"""A named subset of weights is published alone: others stay as they were published last, and no two are mixed."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.optim import Adam

from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.learn.weights import packing
from shoal.nets.policy import PlainPolicy
from shoal.stream.actors.rows import ActorRows, ActorSettings
from shoal.stream.actors.weights import Pulled, Weights
from shoal.stream.meter import Meter
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError
from tests.stream.test_actors import cartpoles
from tests.stream.test_distant_actors import Placed

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv


class Adapted(nn.Module):
    """Values are `base` + `adapter`, whatever is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(4, 1)
        self.adapter = nn.Linear(4, 1)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value = self.base(obs) + self.adapter(obs)
        return torch.zeros(*obs.shape[:-1], 2), value.squeeze(-1)


def made(env: VecEnv) -> tuple[Any, Learner, Adapted]:
    """Rollouts of it, who learns, and the module."""
    module = Adapted()
    learner = Learner(PlainPolicy(module, env.spec), Adam, lr=0.1)
    return rollouts(env, learner, num_steps=2, acting=Acting(5), meter=Meter()), learner, module


def set_to(module: Adapted, base: float, adapter: float) -> None:
    """Constant values."""
    with torch.no_grad():
        module.base.bias.fill_(base)
        module.adapter.bias.fill_(adapter)


@pytest.mark.parametrize("place", ["here", "thread", pytest.param("process", marks=pytest.mark.slow)])
def test_what_is_not_named_stays(place: str) -> None:
    """In this process and in actors: a base of 10 is not published with the adapter, but with all."""
    if place == "here":
        env: VecEnv = make("CartPole-v1", 2)
    else:
        env = ActorRows(cartpoles, 2, ActorSettings(1), place=Placed if place == "thread" else None)
    with closing(env):
        stream, learner, module = made(env)
        found: list[Any] = []
        for base, adapter, only in ((1, 1, ()), (10, 2, ("adapter",)), (10, 3, ("adapter",)), (10, 3, ())):
            next(stream)
            set_to(module, base, adapter)
            learner.publish(only=only)  # a version that nobody acts with
            stream.publish(only=only)
            steps = next(stream)
            found.append((steps.value.unique().tolist(), steps.version.unique().tolist()))
            stream.answered()
    assert found == [([2.0], [2]), ([3.0], [4]), ([4.0], [6]), ([13.0], [8])]


def test_a_part_travels_alone() -> None:
    """Its parameters and nothing else; to one who does not have what it changed, all do."""
    with closing(make("CartPole-v1", 2)) as env:
        _, learner, _ = made(env)
    learner.publish()
    learner.publish(only=("adapter",))
    part = Weights.of(learner, 1)
    assert part.names == ("module.adapter.weight", "module.adapter.bias")
    assert len(part.flat) == 5
    assert part.since == 1
    for since in (None, 0):
        whole = Weights.of(learner, since)
        assert whole.names is None
        assert len(whole.flat) == sum(p.numel() for p in packing(learner.policy))


def test_two_versions_are_not_mixed() -> None:
    """A part of another version than the one that is there is refused."""
    with closing(make("CartPole-v1", 4)) as env:
        _, learner, _ = made(env)
    reader = Pulled(PlainPolicy(Adapted(), env.spec))
    learner.publish()
    learner.publish(only=("adapter",))
    with pytest.raises(RuntimeError, match="came as what changed since version 1, but version -1 is here"):
        reader.take(Weights.of(learner, 1))
    learner.publish(only=("adapter",))
    reader.take(Weights.of(learner))
    assert reader.version == 3


def test_a_name_of_nothing() -> None:
    """It is refused before a version is counted."""
    with closing(make("CartPole-v1", 2)) as env:
        _, learner, _ = made(env)
    with pytest.raises(ConfigError, match="no parameter or buffer of the policy has 'lora_a' in its path"):
        learner.publish(only=("lora_a",))
    assert learner.version == 0
